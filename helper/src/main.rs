//! The program; all of it is in the library.

fn main() -> std::process::ExitCode {
    hybrid_runner_helper::main()
}
