//! Who may do what.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use lime_core::identity::{
    Action, ApiKey, ApiKeySecret, Authority, BuiltInRole, Denied, Grant, LimitedBy, Pepper, Peppers,
    Permission, Permissions, Reach, Resource, Role, User, UserStatus, authorize,
};
use lime_core::planning::Project;
use lime_core::ports::Entropy;
use lime_core::{Entity, ErrorKind, Id, Result};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

const ADA: Id<User> = Id::new(1);

/// Leaves the bytes as they are.
struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
}

fn user(status: UserStatus) -> User {
    User { email: "ada@example.com".into(), name: None, github_user_id: None, status }
}

fn person(grants: impl IntoIterator<Item = Grant>) -> Authority {
    Authority::of_user(&user(UserStatus::Active), grants)
}

fn key(user_id: Option<Id<User>>, scopes: Grant) -> ApiKey {
    let secret = ApiKeySecret::generate(&Zeros).unwrap();
    let peppers = Peppers::new(Pepper::new(1, vec![7; 32].into()).unwrap(), []).unwrap();
    let key = ApiKey::new("ci", scopes.permissions, &secret, &peppers);
    ApiKey { user_id, project_id: scopes.project_id, ..key }
}

fn may(actor: &Authority, permission: Permission, project: Option<Id<Project>>) -> bool {
    authorize(actor, permission.action(), permission.resource().within(project)).is_ok()
}

fn of(texts: &[&str]) -> Permissions {
    texts.iter().map(|text| Permission::parse(text).unwrap()).collect()
}

fn tenant_wide(permissions: Permissions) -> Grant {
    Grant { permissions, project_id: None }
}

#[test]
fn every_action_and_every_resource_is_in_the_matrix() {
    for resource in Resource::ALL {
        let read = Permission::new(Action::Read, *resource);
        assert!(read.is_some(), "{resource:?} has no row: say in matrix.rs who may do what to it");
    }
    for action in Action::ALL {
        let row = Permission::all().find(|it| it.action() == *action);
        assert!(row.is_some(), "{action:?} has no row: say in matrix.rs who may do it to what");
    }
    let rows: Vec<_> = Permission::all().collect();
    assert_eq!(
        rows.iter().copied().collect::<Permissions>().iter().count(),
        rows.len(),
        "a permission stands twice"
    );
}

#[test]
fn every_pair_is_decided() {
    let admin = person([tenant_wide(BuiltInRole::Admin.permissions())]);
    for (action, resource) in Action::ALL.iter().flat_map(|a| Resource::ALL.iter().map(|r| (*a, *r))) {
        match Permission::new(action, resource) {
            Some(permission) => {
                assert_eq!((permission.action(), permission.resource()), (action, resource));
                assert_eq!(authorize(&Authority::of_system(), action, resource), Ok(()));
                assert_eq!(authorize(&admin, action, resource), Ok(()), "an admin may do everything");
            }
            None => {
                for actor in [&admin, &Authority::of_system()] {
                    let denied = authorize(actor, action, resource);
                    assert_eq!(denied, Err(Denied::Undecided { action, resource }));
                }
            }
        }
    }
}

/// `src/identity/matrix.md` is part of the documentation of `BuiltInRole`.
#[test]
fn the_documented_matrix_is_the_one_that_counts() {
    let columns: Vec<_> = BuiltInRole::ALL
        .iter()
        .map(|role| (role.as_str(), role.permissions()))
        .chain([("agent", Permissions::of_agents())])
        .collect();
    let mut expected = String::from("| permission |");
    expected.extend(columns.iter().map(|(name, _)| format!(" {name} |")));
    expected += "\n|---|";
    expected.extend(columns.iter().map(|_| ":-:|"));
    for permission in Permission::all() {
        expected += &format!("\n| `{permission}` |");
        expected
            .extend(columns.iter().map(|(_, has)| if has.contains(permission) { " x |" } else { "   |" }));
    }
    let documented = include_str!("../src/identity/matrix.md");
    assert_eq!(documented.trim_end(), expected, "src/identity/matrix.md should be:\n{expected}\n");
}

#[test]
fn what_must_hold_however_the_matrix_is_edited() {
    let agents = Permissions::of_agents();
    for permission in agents.iter() {
        let (action, resource) = (permission.action(), permission.resource());
        assert!(
            matches!(action, Action::Read)
                || resource == Resource::Ticket && matches!(action, Action::Create | Action::Update),
            "an agent reads and writes tickets, and no more: {permission}"
        );
        let secret = [Resource::EnvVar, Resource::ApiKey, Resource::OwnApiKey, Resource::AuditLog];
        assert!(!secret.contains(&resource), "{permission}");
    }
    for role in BuiltInRole::ALL {
        let has = role.permissions();
        let may = |text| has.contains(Permission::parse(text).unwrap());
        assert!(!may("runs:create") || may("runs:cancel"), "{role} may start runs that it may not stop");
        let hands_out_rights = ["roles:assign", "roles:update", "api_keys:create", "users:create"];
        assert!(*role == BuiltInRole::Admin || !hands_out_rights.into_iter().any(may), "{role}");
        for permission in has.iter() {
            let read = Permission::new(Action::Read, permission.resource()).unwrap();
            assert!(has.contains(read), "{role} has {permission} without {read}");
        }
    }
}

#[test]
fn texts_round_trip_and_others_are_refused() {
    for permission in Permission::all() {
        assert_eq!(permission.to_string().parse(), Ok(permission));
    }
    let cancel = of(&["runs:cancel", "runs:read"]);
    let json = serde_json::to_string(&cancel).unwrap();
    assert_eq!(json, r#"["runs:read","runs:cancel"]"#);
    assert_eq!(serde_json::from_str::<Permissions>(&json).unwrap(), cancel);
    for bad in ["", "runs", "runs:", ":cancel", "runs:*", "*:*", "Runs:cancel", "runs:cancel:x", " runs:read"]
    {
        assert!(Permission::parse(bad).is_err(), "{bad:?}");
    }
    assert!(serde_json::from_str::<Permissions>(r#"["runs:read","runs:fly"]"#).is_err());
    assert_eq!(
        Permission::parse("audit_log:delete").unwrap_err().to_string(),
        "permission: `audit_log` can be given with: read"
    );
}

#[test]
fn a_row_of_another_version_grants_what_is_known() {
    assert_eq!(Permissions::known(["runs:read", "runs:fly", "ghosts:read"]), of(&["runs:read"]));
}

#[test]
fn built_in_roles_stay_as_they_are() {
    for role in BuiltInRole::ALL {
        Role::built_in(*role).validate().unwrap();
        let all = Role { permissions: Permission::all().collect(), ..Role::built_in(*role) };
        assert_eq!(all.validate().is_ok(), *role == BuiltInRole::Admin);
        let disguised = Role::new(format!(" {}", role.as_str().to_uppercase()), Permissions::default());
        assert_eq!(disguised.validate().unwrap_err().field, "name");
    }
    let unknown = Role { is_built_in: true, ..Role::new("owner", Permissions::default()) };
    assert!(unknown.validate().is_err());
    Role::new("release manager", of(&["runs:cancel"])).validate().unwrap();
}

#[test]
fn who_is_refused_hears_what_is_missing_and_whom_to_ask() {
    let ours = Id::new(1);
    let reader = person([Grant { permissions: of(&["runs:read", "tenants:read"]), project_id: Some(ours) }]);
    let denied = authorize(&reader, Action::Cancel, Resource::Run.within(ours)).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "this needs the permission `runs:cancel` in project 1, which your roles do not give; \
         ask an admin, or whoever else has `roles:assign`"
    );
    let error = denied.refused("runs.cancel");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::PermissionDenied, "runs.cancel"));

    let in_the_tenant = authorize(&reader, Action::Read, Resource::Tenant).unwrap_err().to_string();
    assert!(in_the_tenant.contains("`tenants:read` in the whole tenant"), "{in_the_tenant}");
    let key = Authority::of_key(&key(None, tenant_wide(of(&["runs:read"]))), None);
    let by_key = authorize(&key, Action::Cancel, Resource::Run).unwrap_err().to_string();
    assert!(by_key.contains("the scopes of this API key"), "{by_key}");
}

#[test]
fn a_key_is_worth_no_more_than_its_owner_is_now() {
    let all: Permissions = Permission::all().collect();
    let read = Permission::parse("runs:read").unwrap();
    let key_of_ada = key(Some(ADA), tenant_wide(all.clone()));
    let admin = tenant_wide(all.clone());
    assert!(may(&Authority::of_key(&key_of_ada, Some(person([admin.clone()]))), read, None));

    let disabled = Authority::of_user(&user(UserStatus::Disabled), [admin]);
    for owner in [None, Some(person([])), Some(disabled)] {
        let key = Authority::of_key(&key_of_ada, owner);
        let denied = authorize(&key, Action::Read, Resource::Run);
        let missing = Denied::Missing { permission: read, project_id: None, limited_by: LimitedBy::Roles };
        assert_eq!(denied, Err(missing));
    }
    assert!(may(&Authority::of_key(&key(None, tenant_wide(all)), None), read, None), "the tenant's own");
}

#[test]
fn nobody_gives_what_they_do_not_have() {
    let clerk = person([tenant_wide(of(&["roles:assign", "roles:read"]))]);
    assert!(clerk.check_grant(&tenant_wide(of(&["roles:read"]))).is_ok());
    let denied = clerk.check_grant(&tenant_wide(BuiltInRole::Admin.permissions())).unwrap_err();
    assert!(matches!(denied, Denied::Missing { .. }));

    let in_project =
        |id| Grant { permissions: of(&["roles:assign", "runs:read"]), project_id: Some(Id::new(id)) };
    let lead = person([in_project(1)]);
    assert!(lead.check_grant(&in_project(1)).is_ok());
    assert!(lead.check_grant(&in_project(2)).is_err());
    assert!(lead.check_grant(&tenant_wide(of(&["runs:read"]))).is_err());
}

fn project() -> impl Strategy<Value = Option<Id<Project>>> {
    prop_oneof![Just(None), (1..4_i64).prop_map(|id| Some(Id::new(id)))]
}

fn grant() -> impl Strategy<Value = Grant> {
    let all: Vec<_> = Permission::all().collect();
    // Few of them too, or hardly ever would somebody have all that somebody else has.
    let some = prop_oneof![subsequence(all.clone(), 0..=all.len()), subsequence(all, 0..3)];
    (some, project())
        .prop_map(|(some, project_id)| Grant { permissions: some.into_iter().collect(), project_id })
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    vec(grant(), 0..4)
}

/// Every permission, in the whole tenant and in each project.
fn everything() -> impl Iterator<Item = (Permission, Option<Id<Project>>)> {
    let places = [None, Some(Id::new(1)), Some(Id::new(2)), Some(Id::new(3))];
    Permission::all().flat_map(move |permission| places.map(|place| (permission, place)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn several_roles_permit_what_any_of_them_does(some in grants(), more in grants()) {
        let (one, other) = (person(some.clone()), person(more.clone()));
        let both = person(some.into_iter().chain(more));
        for (permission, place) in everything() {
            let either = may(&one, permission, place) || may(&other, permission, place);
            prop_assert_eq!(may(&both, permission, place), either, "{} in {:?}", permission, place);
        }
    }

    #[test]
    fn a_key_permits_what_both_its_scopes_and_its_owner_do(scopes in grant(), owner in grants()) {
        let owner = person(owner);
        let own = Authority::of_key(&key(Some(ADA), scopes.clone()), Some(owner.clone()));
        let tenants = Authority::of_key(&key(None, scopes.clone()), None);
        let scopes = person([scopes]);
        for (permission, place) in everything() {
            let scoped = may(&scopes, permission, place);
            prop_assert_eq!(may(&own, permission, place), scoped && may(&owner, permission, place));
            prop_assert_eq!(may(&tenants, permission, place), scoped);
        }
    }

    #[test]
    fn an_agent_keeps_to_its_project_and_to_who_started_it(grants in grants(), scopes in grant()) {
        let starter = person(grants);
        let key = Authority::of_key(&key(Some(ADA), scopes), Some(starter.clone()));
        for starter in [starter, key, Authority::of_system()] {
            let agent = Authority::of_agent(Id::new(1), starter.clone());
            for (permission, place) in everything() {
                let its_own = place == Some(Id::new(1)) && Permissions::of_agents().contains(permission);
                prop_assert_eq!(may(&agent, permission, place), its_own && may(&starter, permission, place));
            }
        }
    }

    #[test]
    fn what_is_given_gives_nobody_more_than_the_giver_has(giver in grants(), given in grant()) {
        let giver = person(giver);
        let receiver = person([given.clone()]);
        let beyond = everything().any(|(it, place)| may(&receiver, it, place) && !may(&giver, it, place));
        prop_assert_eq!(giver.check_grant(&given).is_err(), beyond);
    }

    #[test]
    fn reach_says_what_authorize_would(grants in grants(), scopes in grant()) {
        let key = Authority::of_key(&key(Some(ADA), scopes), Some(person(grants)));
        for (permission, place) in everything() {
            let reached = match (key.reach(permission), place) {
                (Reach::Tenant, _) => true,
                (Reach::Projects(projects), Some(place)) => projects.contains(&place),
                (Reach::Projects(_), None) => false,
            };
            prop_assert_eq!(reached, may(&key, permission, place));
        }
    }
}
