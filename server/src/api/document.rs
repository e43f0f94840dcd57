//! The description of the API, with the types of the core in it.
//!
//! The API's own types describe themselves to utoipa; those of the core have a JSON Schema already, which
//! goes in as it is.

use hybrid_runner_core::run::{Failure, RunSpec, Times};
use hybrid_runner_core::workflow::Workflow;
use hybrid_runner_core::{Capabilities, LogChunk};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

/// Fields of the API's types that hold a type of the core.
const FIELDS: [(&str, &str, &str); 5] = [
    ("Submit", "workflow", "Workflow"),
    ("Run", "times", "Times"),
    ("Run", "failure", "Failure"),
    ("Run", "spec", "RunSpec"),
    ("Runner", "capabilities", "Capabilities"),
];

/// The description as it is served.
pub(super) fn document(api: &OpenApi) -> Value {
    let mut document = serde_json::to_value(api).expect("a description has a JSON form");
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<Workflow>();
    generator.subschema_for::<RunSpec>();
    generator.subschema_for::<Times>();
    generator.subschema_for::<Failure>();
    generator.subschema_for::<Capabilities>();
    generator.subschema_for::<LogChunk>();
    let core = generator.take_definitions(true);
    let schemas = &mut document["components"]["schemas"];
    for (schema, field, core) in FIELDS {
        let field = &mut schemas[schema]["properties"][field];
        let description = field["description"].clone();
        *field =
            json!({ "$ref": format!("#/components/schemas/{core}"), "description": description });
    }
    if let Value::Object(schemas) = schemas {
        schemas.extend(core);
    }
    document
}
