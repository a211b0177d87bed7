use lime_core::Store;
use lime_core::governance::{Amount, Budget, BudgetPeriod, BudgetSubject, BudgetUnit, Currency, TimeZone};
use lime_core::ports::{Admission, BudgetDemand, Budgets};

use crate::ground::{Ground, LONG, claim, fields, submit, tenant};

#[tokio::test]
async fn budgets_are_shown_as_they_stand() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let none = ground.run(["budget", "show"]).await;
    assert_eq!((none.code, none.stdout.lines().count()), (0, 1), "the columns stay");
    assert!(none.stderr.contains("There are none"));

    let dollars = BudgetUnit::Money(Currency::USD);
    let monthly = Budget {
        soft_limit: Some(Amount::new(2_000_000)),
        ..Budget::new(
            BudgetSubject::Project(project.id),
            BudgetPeriod::Monthly,
            dollars,
            Amount::new(10_000_000),
        )
    };
    let monthly = storage.insert(&scope, monthly).await.unwrap();
    let runs = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Daily, BudgetUnit::Runs, Amount::new(7));
    storage.insert(&scope, Budget { enforce_hard_stop: false, ..runs }).await.unwrap();
    submit(&storage, &scope, &project, "work").await;
    let claim = claim(&storage, LONG).await;
    let window = monthly.period.window(claim.run.updated_at, TimeZone::UTC, claim.run.id);
    let demand = BudgetDemand {
        budget: monthly.id,
        window: window.clone(),
        used: Amount::new(1_250_000),
        ahead: Amount::new(1_000_000),
    };
    assert_eq!(storage.hold(&claim.lease, vec![demand]).await.unwrap(), Admission::Admitted);

    let shown = ground.json(["budget", "show"]).await;
    assert_eq!(fields(&shown), ["budgets"]);
    let (first, second) = (&shown["budgets"][0], &shown["budgets"][1]);
    assert_eq!(
        fields(first),
        [
            "currency",
            "enabled",
            "endsAt",
            "enforceHardStop",
            "held",
            "id",
            "left",
            "limit",
            "period",
            "softLimit",
            "spent",
            "subject",
            "tenant",
            "unit",
            "warned",
            "window",
        ]
    );
    assert_eq!(first["subject"], format!("project {}", project.id));
    assert_eq!(
        [&first["spent"], &first["held"], &first["left"], &first["limit"]],
        [1_250_000, 1_000_000, 7_750_000, 10_000_000]
    );
    assert_eq!((&first["warned"], &first["currency"]), (&true.into(), &"USD".into()));
    assert_eq!(first["window"], window.key);
    assert_eq!((&second["unit"], &second["currency"]), (&"runs".into(), &serde_json::Value::Null));

    let text = ground.run(["budget", "show"]).await.stdout;
    for part in ["1.2500 USD", "7.7500 USD", &window.key, "stops", "yes", "7 runs", "warns"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_tenant_has_a_time_zone() {
    let Some(ground) = Ground::migrated().await else { return };
    let made = ground.json(["tenants", "create", "acme"]).await;
    assert_eq!(made["timeZone"], "UTC");
    let set = ground.json(["tenants", "time-zone", "acme", "Europe/Berlin"]).await;
    assert_eq!(set["timeZone"], "Europe/Berlin");
    assert_eq!(ground.run(["tenants", "time-zone", "acme", "Mars/Olympus"]).await.code, 2);
    assert_eq!(ground.run(["tenants", "time-zone", "nobody", "UTC"]).await.code, 3);
}
