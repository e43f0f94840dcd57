//! `token create|list|revoke`

use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::Done;
use super::args::{Role, Token, TokenCreate, TokenList, TokenRevoke};
use super::exit::{Exit, Failure};
use super::output::Output;
use super::runs::client;

pub(crate) async fn token(args: Token, output: Output) -> Done {
    match args {
        Token::Create(args) => create(args, output).await,
        Token::List(args) => list(args, output).await,
        Token::Revoke(args) => revoke(args, output).await,
    }
}

async fn create(args: TokenCreate, output: Output) -> Done {
    if args.role == Role::Runner && args.runner.is_none() {
        return Err(Failure::usage(
            "a token of role `runner` is for one runner: name it with `--runner ID`",
        ));
    }
    if args.role != Role::Runner && args.runner.is_some() {
        return Err(Failure::usage("`--runner` goes with `--role runner` only"));
    }
    let client = client(&args.client, output)?;
    let role = args.role.to_possible_value().expect("no role is hidden");
    let body = json!({ "role": role.get_name(), "agent": args.runner, "name": args.name });
    let made: Value = client.post("/api/v1/tokens", &body).await?;
    if output.json {
        output.object(&made)?;
    } else {
        output.note(format!(
            "token {} made; it is shown only now",
            made["id"].as_str().unwrap_or_default()
        ));
        output.line(made["token"].as_str().unwrap_or_default())?;
    }
    Ok(Exit::Done)
}

async fn list(args: TokenList, output: Output) -> Done {
    let list: Value = client(&args.client, output)?
        .get("/api/v1/tokens", &[])
        .await?;
    let list = &list["tokens"];
    if output.json {
        output.object(list)?;
        return Ok(Exit::Done);
    }
    let row = |token: &Value| {
        let text = |key: &str| token[key].as_str().unwrap_or_default().to_owned();
        let state = if token["revoked"].is_string() {
            "revoked"
        } else {
            "valid"
        };
        vec![
            text("id"),
            text("role"),
            text("agent"),
            text("name"),
            state.to_owned(),
            text("created"),
        ]
    };
    let rows: Vec<_> = list.as_array().into_iter().flatten().map(row).collect();
    output.table(&["ID", "ROLE", "RUNNER", "NAME", "STATE", "CREATED"], &rows)?;
    Ok(Exit::Done)
}

async fn revoke(args: TokenRevoke, output: Output) -> Done {
    let fits = args
        .id
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !fits || args.id.is_empty() {
        return Err(Failure::usage(format!(
            "`{}` is not a token's id: `token list` shows them",
            args.id
        )));
    }
    client(&args.client, output)?
        .delete(&format!("/api/v1/tokens/{}", args.id))
        .await?;
    output.note(format!("token {} revoked", args.id));
    Ok(Exit::Done)
}
