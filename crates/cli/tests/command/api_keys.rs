use lime_core::Store;
use lime_core::identity::{User, UserStatus};

use crate::ground::{Ground, Seen, fields, tenant};

/// Peppers, as an operator has them in the environment.
const PEPPERS: &str = "1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

async fn create(ground: &Ground, args: &[&str]) -> Seen {
    let mut command = ground.command(["api-key", "create"].iter().chain(args));
    command.env("LIME_API_KEY_PEPPERS", PEPPERS);
    Seen::of(command).await
}

#[tokio::test]
async fn a_key_is_made_listed_and_revoked() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, _) = tenant(&storage, "acme").await;
    let ada = User {
        email: "ada@example.com".into(),
        name: None,
        github_user_id: None,
        status: UserStatus::Active,
    };
    storage.insert(&scope, ada).await.unwrap();

    let args = ["--name", "ci", "--scope", "runs:create", "--scope", "runs:read"];
    let made = create(&ground, &args).await;
    assert_eq!(made.code, 0);
    let key = made.stdout.trim_end();
    assert_eq!((made.stdout.lines().count(), key.len()), (1, 41), "the key and nothing else");
    assert!(!made.stderr.contains(&key[13..]), "it is told once");
    let prefix = &key[5..13];

    let theirs =
        [&args[..], &["--user", "Ada@example.com", "--project", "web", "--expires-in", "90d", "--json"]]
            .concat();
    assert_eq!(create(&ground, &theirs).await.code, 3, "there is no such project");
    let theirs = theirs.into_iter().map(|arg| if arg == "web" { "WEB" } else { arg }).collect::<Vec<_>>();
    let document = create(&ground, &theirs).await.json();
    assert_eq!(
        fields(&document),
        [
            "createdAt",
            "expiresAt",
            "id",
            "key",
            "lastUsedAt",
            "name",
            "prefix",
            "projectId",
            "revokedAt",
            "scopes",
            "userId"
        ]
    );
    assert_eq!((&document["userId"], &document["projectId"]), (&"1".into(), &"1".into()));

    let list = ground.json(["api-key", "list"]).await;
    assert_eq!(list["apiKeys"].as_array().unwrap().len(), 2);
    assert_eq!(list["apiKeys"][0]["scopes"], serde_json::json!(["runs:create", "runs:read"]));
    let text = ground.run(["api-key", "list"]).await.stdout;
    assert!(text.starts_with("PREFIX    NAME  USER") && text.contains(prefix), "{text}");
    assert!(!format!("{text}{list}").contains(&key[13..]), "nobody can show it again");

    assert_eq!(ground.run(["api-key", "revoke", prefix]).await.code, 2, "it asks first");
    for named in [prefix, &key[..13]] {
        let revoked = ground.json(["api-key", "revoke", named, "--yes"]).await;
        assert!(revoked["revokedAt"].is_string(), "{revoked}");
    }
    assert_eq!(ground.json(["api-key", "list"]).await["apiKeys"].as_array().unwrap().len(), 1);
    assert_eq!(ground.json(["api-key", "list", "--all"]).await["apiKeys"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_told_without_it() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    tenant(&storage, "acme").await;
    tenant(&storage, "other").await;
    let args = ["--name", "ci", "--scope", "runs:read"];
    assert_eq!(create(&ground, &args).await.code, 2, "of which tenant?");
    let args = [&args[..], &["--tenant", "acme"]].concat();
    let blind = ground.run(["api-key", "create"].iter().chain(&args)).await;
    assert!(blind.code == 2 && blind.stderr.contains("LIME_API_KEY_PEPPERS"));
    let mut command = ground.command(["api-key", "create"].iter().chain(&args));
    command.env("LIME_API_KEY_PEPPERS", "1:c2VjcmV0");
    let short = Seen::of(command).await;
    assert!(short.code == 2 && !short.stderr.contains("c2VjcmV0"));
    let key = create(&ground, &args).await.stdout;
    let prefix = &key[5..13];
    assert_eq!(ground.run(["api-key", "revoke", prefix, "--tenant", "other", "--yes"]).await.code, 3);
    assert_eq!(ground.run(["api-key", "revoke", "AAAAAAAA", "--yes"]).await.code, 3);
    assert_eq!(
        ground.run(["api-key", "revoke", key.trim_end(), "--yes"]).await.code,
        2,
        "a whole key is none"
    );
    let unknown = create(&ground, &["--name", "ci", "--scope", "runs:fly"]).await;
    assert!(unknown.code == 2 && unknown.stderr.contains("runs:fly"));
}
