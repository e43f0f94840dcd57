//! Deaths of the engine.
