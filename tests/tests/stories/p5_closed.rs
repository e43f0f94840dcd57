//! P5: what cannot be resolved does not start, and says which reference, which store, and why.

use hybrid_runner_tests::{Runner, Server, Story};

#[tokio::test]
async fn a_reference_that_cannot_be_resolved_fails_the_run_before_it_starts() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.sections = "[secrets.vars]\nkind = \"env\"\n".to_owned();
        runner.environment = vec![(
            "SECRET_THERE".to_owned(),
            "a-value-of-a-variable".to_owned(),
        )];
        runner.start().await;
        let client = server.client();
        story.write("secrets/json", r#"{"user": "meow", "password": "pass"}"#);
        std::os::unix::fs::symlink("/etc/hostname", story.path("secrets/outside")).unwrap();

        for (reference, words) in [
            ("secret:/missing", ["secret:/missing", "files"]),
            ("secret:files:/missing", ["missing", "files"]),
            ("secret:vars:/not/there", ["SECRET_NOT_THERE", "vars"]),
            ("secret:nowhere:/x", ["nowhere", "files"]),
            ("secret:/../runner-1.token", ["..", "files"]),
            ("secret:/outside", ["outside", "files"]),
            ("secret:/json#nothing", ["nothing", "json"]),
            ("secret:vars:/AUTH_TOKEN", ["AUTH_TOKEN", "vars"]),
        ] {
            let workflow = story
                .sh("closed", "touch $STORY/started")
                .env("A", reference);
            let run = client.submit(&workflow, "runner-1").await;
            client.finished(&run).await.expect_failed("secret", &words);
        }
        // Why it failed is told without the value.
        story.write("secrets/no-json", "a-value-that-is-no-json");
        let workflow = story
            .sh("closed", "touch $STORY/started")
            .env("A", "secret:/no-json#user");
        let run = client.submit(&workflow, "runner-1").await;
        let end = client.finished(&run).await;
        end.expect_failed("secret", &["no-json", "files"]);
        assert!(!end.0.to_string().contains("a-value-that"), "{}", end.0);
        assert!(!runner.program().errors().contains("a-value-that"));
        assert!(!story.path("started").exists());

        let workflow = story
            .sh(
                "open",
                "[ \"$A$B$C\" = meowa-value-of-a-variablefallback ] && echo right",
            )
            .env("A", "secret:/json#user")
            .env("B", "secret:vars:/there")
            .env("C", "secret:/missing?default=fallback");
        let run = client.submit(&workflow, "runner-1").await;
        client.finished(&run).await.expect("succeeded");
        assert_eq!(client.text(&run).await, "right\n");
    })
    .await;
}

#[tokio::test]
async fn recovery_resolves_nothing_for_an_attempt_that_lives() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        story.write("secrets/once", "a-value-that-goes");
        let script = "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo [$A]";
        let run = client
            .submit(
                &story.sh("living", script).env("A", "secret:/once"),
                "runner-1",
            )
            .await;
        let mut follow = client.follow(&run);
        follow.lines(1).await;

        runner.kill().await;
        std::fs::remove_file(story.path("secrets/once")).unwrap();
        runner.start().await;
        story.write("gate", "");

        follow.end().await.expect("succeeded");
        assert_eq!(follow.text(), "up\n[***]\n");
    })
    .await;
}

#[tokio::test]
async fn a_reference_that_means_no_store_is_wrong_usage_and_no_store_is_asked() {
    Story::told(60, async |story| {
        let config = "[secrets.prod]\nkind = \"env\"\n[secrets.test]\nkind = \"env\"\n";
        let config = story.write("config.toml", config).display().to_string();
        for (reference, words) in [
            ("secret:prod:", "this is the name of a store"),
            ("secret:prod", "this is the name of a store"),
            ("secret:nowhere:/x", "no store `nowhere`"),
            ("secret:/x", "there is no default one"),
        ] {
            let check = [
                "secrets",
                "check",
                "secret:prod:/x?default=y",
                reference,
                "-c",
                &config,
            ];
            let ended = story.command(&check).await;
            ended.expect(2).says(&[words]);
            assert_eq!(ended.text(), "", "{reference}");
        }
    })
    .await;
}
