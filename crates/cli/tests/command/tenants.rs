use crate::ground::{Ground, fields, submit, tenant};

#[tokio::test]
async fn tenants_are_made_listed_and_limited() {
    let Some(ground) = Ground::migrated().await else { return };
    let none = ground.run(["tenants", "list"]).await;
    assert_eq!((none.code, none.stdout.lines().count()), (0, 1), "the columns stay");
    assert!(none.stderr.contains("lime tenants create"));
    let nobody = ground.run(["runs", "list"]).await;
    assert_eq!(nobody.code, 3);
    assert!(nobody.stderr.contains("lime tenants create"));

    let made = ground.json(["tenants", "create", "acme", "--name", "Acme, Inc."]).await;
    assert_eq!(fields(&made), ["createdAt", "id", "maxConcurrentRuns", "name", "slug", "timeZone"]);
    assert_eq!(
        (&made["slug"], &made["name"], &made["id"]),
        (&"acme".into(), &"Acme, Inc.".into(), &"1".into())
    );
    assert_eq!(ground.run(["tenants", "create", "acme"]).await.code, 1, "the slug is taken");

    let limited = ground.json(["tenants", "limit", "acme", "4"]).await;
    assert_eq!(limited["maxConcurrentRuns"], 4);
    assert_eq!(ground.run(["tenants", "limit", "acme", "0"]).await.code, 2);
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "other").await;
    submit(&storage, &scope, &project, "work").await;

    let list = ground.json(["tenants", "list"]).await;
    assert_eq!(fields(&list), ["tenants"]);
    let (acme, other) = (&list["tenants"][0], &list["tenants"][1]);
    assert_eq!(
        fields(acme),
        ["createdAt", "id", "leased", "maxConcurrentRuns", "name", "paused", "slug", "timeZone", "waiting"]
    );
    assert_eq!((&acme["maxConcurrentRuns"], &acme["waiting"]), (&4.into(), &0.into()));
    assert_eq!((&other["slug"], &other["waiting"]), (&"other".into(), &1.into()));
    let text = ground.run(["tenants", "list"]).await.stdout;
    assert!(text.starts_with("ID  SLUG   WAITING  LEASED  PAUSED  LIMIT  CREATED"), "{text}");
    assert_eq!(
        ground.json(["tenants", "limit", "acme", "none"]).await["maxConcurrentRuns"],
        serde_json::Value::Null
    );
}
