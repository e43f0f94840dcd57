//! Builds the helper for the executors that run it, small and static, so that the library carries it inside.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const HELPER: &str = "hybrid-runner-helper";

/// The features of the executors that need it.
const USERS: &[&str] = &["CARGO_FEATURE_LOCAL", "CARGO_FEATURE_DOCKER"];

/// Variables of the outer cargo that the inner one may see; the rest describe the wrong package or its flags.
const PASSED: &[&str] = &["CARGO_HOME", "CARGO_MAKEFLAGS"];
const PASSED_PREFIXES: &[&str] = &[
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if USERS.iter().all(|user| env::var_os(user).is_none()) {
        return;
    }
    let workspace = path("CARGO_MANIFEST_DIR")
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned();
    for source in ["helper/src", "helper/Cargo.toml", "Cargo.toml"] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    let binary = build_helper(&workspace);
    println!("cargo::rustc-env=HYBRID_RUNNER_HELPER={}", binary.display());
}

fn build_helper(workspace: &Path) -> PathBuf {
    let target = env::var("TARGET").expect("cargo sets it");
    // A folder of its own: the outer cargo holds the lock of its target folder while this runs.
    let folder = path("OUT_DIR").join("helper");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    for (name, _) in env::vars_os() {
        if !is_passed(&name.to_string_lossy(), &target) {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .current_dir(workspace)
        .args([
            "build",
            "--quiet",
            "--package",
            HELPER,
            "--bin",
            HELPER,
            "--profile",
            "helper",
        ])
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&folder)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static",
        )
        .status();
    let built = folder.join(&target).join("helper").join(HELPER);
    match status {
        Ok(status) if status.success() && built.is_file() => built,
        outcome => panic!(
            "failed to build the helper of the executors `local` and `docker` ({outcome:?}). It is linked statically: \
             `libc.a` is needed (Debian: libc6-dev, Fedora: glibc-static), or a musl target. Try it alone: \
             cargo build -p {HELPER} --profile helper --target {target} --target-dir {}",
            folder.display()
        ),
    }
}

fn is_passed(name: &str, target: &str) -> bool {
    let of_cargo = name.starts_with("CARGO") || name.starts_with("RUSTFLAGS");
    let linker = format!(
        "CARGO_TARGET_{}_LINKER",
        target.to_uppercase().replace('-', "_")
    );
    // `clippy-driver` comes in by the workspace wrapper.
    let wrapper = name == "RUSTC_WORKSPACE_WRAPPER";
    (!of_cargo && !wrapper)
        || name == "CARGO"
        || name == linker
        || PASSED.contains(&name)
        || PASSED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

fn path(variable: &str) -> PathBuf {
    env::var_os(variable).expect("cargo sets it").into()
}
