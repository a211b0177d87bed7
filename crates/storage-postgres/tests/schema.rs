//! The tables are what the documents ask for, and come and go as a whole.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use lime_core::agents::{CustomInstruction, DefaultInstruction};
use lime_core::governance::{
    Approval, ApprovalPolicy, ApprovalRule, ApprovalStatus, Budget, BudgetEntry, BudgetPeriod,
    BudgetUnitKind, Decision, DefaultTools, EntryKind,
};
use lime_core::identity::{ApiKey, Role, User, UserRole};
use lime_core::planning::{Board, Project, Ticket};
use lime_core::ports::{EventLog, Queue, Settlement};
use lime_core::repos::{CodeDiff, Repository, RepositoryConfig, Worktree, WorktreeStatus};
use lime_core::runs::{
    AgentEvent, AgentMode, AgentRun, AttemptEnd, Effect, EffectKind, EffectStatus, FailureKind, MessageRole,
    Outcome, RunAttempt, RunInput, RunStatus, RunStep, StepKind, StepStatus, StopReason, ToolCall,
    ToolCallStatus, ToolStatus, Usage,
};
use lime_core::{Entity, Micros, OnDelete};
use lime_storage_postgres::sea_orm::ConnectionTrait;
use lime_storage_postgres::{Migrator, PgStorage, TestDatabase};
use sea_orm_migration::MigratorTrait;

use crate::support::{claim, database, log, open, scene, settlement, submit, texts};

/// People are of no tenant, nor are the tenants themselves.
const OF_NO_TENANT: &[&str] = &["tenants", "identities", "login_sessions", "seaql_migrations"];

/// What 000 §5, 001, 002 and 004 name, under our names, and ours: table, columns, and for each index its first columns.
const ASKED: &[(&str, &str, &[&str])] = &[
    (
        "tenants",
        "id name slug max_concurrent_runs logo_url settings_json created_at updated_at deleted_at",
        &["slug"],
    ),
    ("identities", "id email name avatar_url email_verified created_at updated_at", &["email"]),
    (
        "login_sessions",
        "id identity_id token_hash expires_at ip_address user_agent created_at updated_at",
        &["token_hash", "identity_id", "expires_at"],
    ),
    ("roles", "id tenant_id name permissions_json is_built_in", &["tenant_id name"]),
    (
        "user_roles",
        "id tenant_id user_id role_id project_id",
        &["tenant_id user_id role_id", "tenant_id user_id", "tenant_id role_id", "tenant_id project_id"],
    ),
    (
        "api_keys",
        "id tenant_id user_id project_id name prefix key_hash pepper_id scopes_json status last_used_at expires_at \
         created_at revoked_at",
        &["tenant_id status", "prefix", "tenant_id user_id", "tenant_id project_id"],
    ),
    ("tenants", "id name slug max_concurrent_runs time_zone created_at", &["slug"]),
    (
        "users",
        "id tenant_id email name github_user_id status identity_id created_at",
        &[
            "tenant_id email",
            "tenant_id status",
            "tenant_id github_user_id",
            "tenant_id identity_id",
            "identity_id",
        ],
    ),
    (
        "projects",
        "id tenant_id name key description config max_concurrent_agents created_at updated_at",
        &["tenant_id key", "tenant_id created_at", "tenant_id updated_at"],
    ),
    (
        "boards",
        "id tenant_id project_id name columns_json created_at",
        &["tenant_id project_id name", "tenant_id project_id"],
    ),
    (
        "tickets",
        "id tenant_id project_id board_id column_key position title description_md priority labels_json \
         assignee_user_id agent_id session_id repository_id branch worktree_id pr_url status_meta_json metadata \
         diff_summary files_changed lines_added lines_removed approved_at approved_by rejection_reason \
         rejection_count started_at completed_at turn_count created_by created_at updated_at",
        &[
            "tenant_id project_id column_key",
            "tenant_id project_id column_key position",
            "tenant_id assignee_user_id",
            "tenant_id repository_id",
            "tenant_id updated_at",
            "tenant_id project_id",
            "tenant_id agent_id",
            "tenant_id branch",
        ],
    ),
    (
        "repositories",
        "id tenant_id connector_id provider external_repo_id owner name full_name clone_url default_branch \
         is_enabled created_at",
        &[
            "tenant_id provider full_name",
            "tenant_id connector_id",
            "tenant_id is_enabled",
            "tenant_id external_repo_id",
        ],
    ),
    (
        "code_diffs",
        "id tenant_id agent_run_id repository_id base_ref head_ref unified_diff summary stats_json created_at",
        &["tenant_id repository_id created_at", "tenant_id agent_run_id"],
    ),
    (
        "agent_runs",
        "id tenant_id project_id ticket_id provider mode status input_prompt output_summary artifacts_json \
         cost_cents started_at ended_at created_at agent_id session_id turn_count token_input_count \
         token_output_count tool_calls error error_type duration_ms stop_reason trigger_message_id channel_id \
         token_usage parent_run_id priority run_at unique_key failure_count pause_requested_at created_by \
         created_by_key",
        &[
            "tenant_id project_id created_at",
            "tenant_id status",
            "tenant_id provider mode",
            "tenant_id agent_id",
            "tenant_id ticket_id",
            "tenant_id project_id",
            "tenant_id started_at",
            "tenant_id agent_id status",
            "tenant_id status created_at",
            "tenant_id unique_key",
            "tenant_id parent_run_id",
            "tenant_id created_by",
            "tenant_id created_by_key",
        ],
    ),
    (
        "run_queue",
        "run_id tenant_id project_id agent_id provider priority state queued_at due_at last_seq inputs",
        &["run_id", "due_at", "tenant_id project_id agent_id provider priority run_id"],
    ),
    (
        "run_leases",
        "run_id tenant_id project_id agent_id provider priority queued_at token started expires_at due_at last_seq \
         inputs cancel_requested pause_requested",
        &["run_id", "due_at"],
    ),
    (
        "agent_events",
        "id tenant_id agent_run_id ts type payload_json seq run_attempt_id step_id",
        &["tenant_id agent_run_id ts", "tenant_id agent_run_id seq", "tenant_id step_id"],
    ),
    ("run_messages", "id run_id step_id message_type content tool_name tool_input created_at", &[]),
    (
        "run_steps",
        "id run_id step_number status model_id token_usage created_at completed_at",
        &["tenant_id run_id step_number"],
    ),
    (
        "worktrees",
        "id project_id ticket_id branch base_branch path status env_copied deps_installed init_script_run \
         last_error created_at updated_at merged_at removed_at",
        &[
            "tenant_id project_id",
            "tenant_id ticket_id",
            "tenant_id branch",
            "tenant_id status",
            "tenant_id path",
        ],
    ),
    (
        "tool_calls",
        "id agent_id agent_run_id ticket_id project_id tool status input output error duration_ms turn_number \
         created_at",
        &[
            "tenant_id agent_id",
            "tenant_id agent_run_id",
            "tenant_id ticket_id",
            "tenant_id project_id",
            "tenant_id tool",
            "tenant_id created_at",
        ],
    ),
    (
        "run_attempts",
        "id tenant_id run_id number worker heartbeat_at outcome error ended_at",
        &["tenant_id run_id number"],
    ),
    (
        "approvals",
        "id tenant_id project_id run_id attempt_id scope action intent_summary payload_json payload_hash status \
         approvers expires_at on_expiry decided_at decided_by note created_at",
        &["tenant_id run_id scope", "tenant_id project_id", "tenant_id status"],
    ),
    (
        "approval_policies",
        "id tenant_id project_id scope tool rule approvers expires_after_s on_expiry enabled",
        &["tenant_id project_id"],
    ),
    (
        "effects",
        "id tenant_id run_id attempt_id kind idempotency_key expected_json status approval_id result error ended_at",
        &["tenant_id run_id idempotency_key", "tenant_id approval_id"],
    ),
    ("tenant_keys", "id tenant_id master_key wrapped created_at", &["tenant_id id"]),
    (
        "env_var_sets",
        "id tenant_id scope_type scope_id name created_at",
        &["tenant_id scope_type scope_id name", "tenant_id scope_type scope_id"],
    ),
    (
        "env_vars",
        "id tenant_id set_id key value_enc is_secret created_at key_id",
        &["tenant_id set_id key", "tenant_id set_id", "tenant_id key_id"],
    ),
    (
        "custom_instructions",
        "id tenant_id scope_type scope_id mode content_md priority enabled created_at project_id repository_id \
         ticket_id scope content_sha256",
        &[
            "tenant_id scope_type scope_id mode priority",
            "tenant_id scope_type scope_id enabled",
            "tenant_id mode",
            "tenant_id project_id",
            "tenant_id repository_id",
            "tenant_id ticket_id",
        ],
    ),
    (
        "default_agent_instructions",
        "id tenant_id provider content_md enabled created_at content_sha256",
        &["tenant_id provider", "tenant_id enabled"],
    ),
    (
        "default_agent_tools",
        "id tenant_id provider allowed_tools_json denied_tools_json enabled created_at",
        &["tenant_id provider", "tenant_id enabled"],
    ),
    (
        "repository_configs",
        "id tenant_id repository_id config_path config_sha config last_synced_at sync_error created_at updated_at",
        &["tenant_id repository_id"],
    ),
    (
        "run_inputs",
        "id tenant_id run_id user_id text attempt_id delivered_at created_at",
        &["tenant_id run_id"],
    ),
    (
        "project_budgets",
        "id tenant_id project_id agent_id subject period unit currency limit_amount soft_limit_amount limit_cents \
         soft_limit_cents enforce_hard_stop enabled created_at",
        &["tenant_id project_id", "tenant_id subject period unit"],
    ),
    ("budget_counters", "tenant_id budget_id window spent held warned", &["tenant_id budget_id window"]),
    (
        "budget_reservations",
        "tenant_id run_id attempt_id budget_id window held used admitted_limit created_at",
        &["tenant_id attempt_id budget_id"],
    ),
    (
        "budget_entries",
        "id tenant_id budget_id window run_id attempt_id kind held spent created_at",
        &["tenant_id budget_id window", "tenant_id run_id", "tenant_id attempt_id"],
    ),
];

const INDEXES: &str = "SELECT t.relname || ' ' || string_agg(a.attname, ' ' ORDER BY k.place)
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (column_number, place)
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.column_number
    WHERE n.nspname = 'public' GROUP BY i.indexrelid, t.relname";

async fn columns(db: &impl ConnectionTrait) -> BTreeSet<String> {
    let sql = "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public'";
    texts(db, sql).await.into_iter().collect()
}

#[tokio::test]
async fn every_column_and_index_that_is_asked_for_is_there() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let columns = columns(storage.connection()).await;
    let indexes = texts(storage.connection(), INDEXES).await;
    for (table, names, leading) in ASKED {
        for name in names.split_whitespace() {
            assert!(columns.contains(&format!("{table}.{name}")), "{table}.{name} is missing");
        }
        for leading in *leading {
            let wanted = format!("{table} {leading}");
            let found =
                indexes.iter().any(|index| *index == wanted || index.starts_with(&format!("{wanted} ")));
            assert!(found, "no index of {table} begins with ({leading})");
        }
    }
}

#[tokio::test]
async fn every_table_is_of_a_tenant_and_every_index_begins_with_it() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let columns = columns(storage.connection()).await;
    let tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'";
    let tables = texts(storage.connection(), tables).await.into_iter();
    for table in tables.filter(|table| !OF_NO_TENANT.contains(&table.as_str())) {
        assert!(columns.contains(&format!("{table}.tenant_id")), "{table} has no tenant");
    }
    for index in texts(storage.connection(), INDEXES).await {
        let mut words = index.split(' ');
        let (table, first) = (words.next().unwrap(), words.next().unwrap());
        // The queue looks for all tenants at once.
        // Authentication does not know the tenant yet, and a person is looked for in all of them.
        let before_any = [("api_keys", "prefix"), ("users", "identity_id")].contains(&(table, first));
        let of_all = OF_NO_TENANT.contains(&table)
            || before_any
            || (["run_queue", "run_leases"].contains(&table) && ["run_id", "due_at"].contains(&first));
        let allowed = of_all || ["tenant_id", "id"].contains(&first);
        assert!(allowed, "the index ({index}) does not begin with the tenant");
    }
}

async fn holds<E: Entity>(storage: &PgStorage) {
    let columns = columns(storage.connection()).await;
    for column in E::COLUMNS {
        assert!(
            columns.contains(&format!("{}.{}", E::TABLE, column.name)),
            "{} has no {}",
            E::TABLE,
            column.name
        );
    }
    for reference in E::REFERENCES {
        let column = reference.column.name;
        let action = match reference.on_delete {
            OnDelete::Restrict => "a",
            OnDelete::Cascade => "c",
            OnDelete::SetNull(_) => "n",
        };
        let sql = format!(
            "SELECT confdeltype::text FROM pg_constraint WHERE conname = '{}_{column}_fkey' AND contype = 'f'
             AND conkey[1] = (SELECT attnum FROM pg_attribute WHERE attrelid = conrelid AND attname = 'tenant_id')",
            E::TABLE
        );
        assert_eq!(texts(storage.connection(), &sql).await, [action], "{}.{column}", E::TABLE);
    }
    for group in E::UNIQUE {
        let names: Vec<_> = group.iter().map(|column| column.name).collect();
        let sql = format!(
            "SELECT contype::text FROM pg_constraint WHERE conname = '{}_{}_key'",
            E::TABLE,
            names.join("_")
        );
        assert_eq!(texts(storage.connection(), &sql).await, ["u"], "{} ({names:?})", E::TABLE);
        let nulls = format!(
            "SELECT indnullsnotdistinct::text FROM pg_index WHERE indexrelid = '{}_{}_key'::regclass",
            E::TABLE,
            names.join("_")
        );
        let nulls_equal = texts(storage.connection(), &nulls).await;
        assert_eq!(nulls_equal, [E::NULLS_EQUAL.to_string()], "{} ({names:?})", E::TABLE);
    }
}

#[tokio::test]
async fn tables_do_what_their_entities_declare() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    holds::<User>(&storage).await;
    holds::<Role>(&storage).await;
    holds::<UserRole>(&storage).await;
    holds::<ApiKey>(&storage).await;
    holds::<Project>(&storage).await;
    holds::<Board>(&storage).await;
    holds::<Ticket>(&storage).await;
    holds::<Repository>(&storage).await;
    holds::<Worktree>(&storage).await;
    holds::<CodeDiff>(&storage).await;
    holds::<AgentRun>(&storage).await;
    holds::<RunAttempt>(&storage).await;
    holds::<RunStep>(&storage).await;
    holds::<ToolCall>(&storage).await;
    holds::<Approval>(&storage).await;
    holds::<ApprovalPolicy>(&storage).await;
    holds::<Effect>(&storage).await;
    holds::<RunInput>(&storage).await;
    holds::<Budget>(&storage).await;
    holds::<BudgetEntry>(&storage).await;
    holds::<CustomInstruction>(&storage).await;
    holds::<DefaultInstruction>(&storage).await;
    holds::<DefaultTools>(&storage).await;
    holds::<RepositoryConfig>(&storage).await;
}

async fn knows(storage: &PgStorage, constraint: &str, words: impl IntoIterator<Item = &'static str>) {
    let sql = format!("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '{constraint}'");
    let rule = texts(storage.connection(), &sql).await.pop().unwrap();
    let literals = rule.split('\'').skip(1).step_by(2);
    let known: BTreeSet<_> =
        literals.flat_map(|literal| literal.trim_matches(['{', '}']).split(',')).map(str::trim).collect();
    assert_eq!(known, words.into_iter().collect(), "{constraint}");
}

#[tokio::test]
async fn the_words_that_columns_take_are_the_cores() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let storage = &storage;
    knows(storage, "agent_runs_status_check", RunStatus::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "agent_runs_mode_check", AgentMode::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "agent_runs_stop_reason_check", StopReason::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "agent_runs_error_type_check", FailureKind::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "run_attempts_outcome_check", AttemptEnd::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "run_steps_kind_check", StepKind::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "run_steps_status_check", StepStatus::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "tool_calls_status_check", ToolCallStatus::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "worktrees_status_check", WorktreeStatus::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "approvals_status_check", ApprovalStatus::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "approvals_on_expiry_check", Decision::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "approval_policies_rule_check", ApprovalRule::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "approval_policies_on_expiry_check", Decision::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "project_budgets_period_check", BudgetPeriod::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "project_budgets_unit_check", BudgetUnitKind::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "budget_entries_kind_check", EntryKind::ALL.iter().map(|word| word.as_str())).await;
    let modes = AgentMode::ALL.iter().map(|word| word.as_str()).chain([CustomInstruction::ANY]);
    knows(storage, "custom_instructions_mode_check", modes).await;
    knows(storage, "effects_kind_check", EffectKind::ALL.iter().map(|word| word.as_str())).await;
    knows(storage, "effects_status_check", EffectStatus::ALL.iter().map(|word| word.as_str())).await;
}

#[tokio::test]
async fn the_log_reads_as_002s_messages_and_money_as_cents() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let run = submit(&storage, &scope, &project).await;
    let lease = claim(&storage, Duration::from_secs(60)).await.lease;
    let tool = |status, input, output| AgentEvent::Tool {
        call_id: "c".into(),
        name: "Bash".into(),
        status,
        input,
        output,
        duration_ms: None,
    };
    let said = |role, text: &str| AgentEvent::Message { role, text: text.into() };
    let events = vec![
        said(MessageRole::System, "s"),
        said(MessageRole::User, "u"),
        said(MessageRole::Assistant, "a"),
        tool(ToolStatus::Started, Some(serde_json::json!({ "command": "ls" })), None),
        tool(ToolStatus::Completed, None, Some("out".into())),
        log("not a message"),
    ];
    storage.append(&lease, events.into()).await.unwrap();
    let messages = "SELECT concat_ws('|', message_type, content, tool_name, tool_input)
        FROM run_messages ORDER BY id";
    assert_eq!(
        texts(storage.connection(), messages).await,
        [
            "system_message|s",
            "user_message|u",
            "assistant_message|a",
            "tool_call_message||Bash|{\"command\": \"ls\"}",
            "tool_return_message|out|Bash",
        ]
    );
    let usage = Usage { input_tokens: 7, output_tokens: 5, cost: Some(Micros(10_001)), ..Usage::default() };
    let ended = Settlement { usage, ..settlement(Outcome::Cancelled) };
    storage.settle(&lease, ended).await.unwrap();
    let sums = "SELECT concat_ws('|', cost_cents, token_usage, duration_ms >= 0) FROM agent_runs";
    assert_eq!(
        texts(storage.connection(), sums).await,
        ["2|{\"input_tokens\": 7, \"output_tokens\": 5}|t"],
        "{run:?}"
    );
}

const LEFT: &str = "SELECT relname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE n.nspname = 'public' AND relkind IN ('r', 'v', 'S') AND relname <> 'seaql_migrations'";

async fn up_twice_and_down(storage: &PgStorage) {
    storage.migrate().await.unwrap();
    let once = columns(storage.connection()).await;
    assert!(once.len() > 150);
    let (first, second) = tokio::join!(storage.migrate(), storage.migrate());
    first.unwrap();
    second.unwrap();
    assert_eq!(columns(storage.connection()).await, once);
    storage.owner(async |owner| Migrator::down(owner, None).await).await.unwrap();
    assert_eq!(texts(storage.connection(), LEFT).await, [""; 0]);
    storage.migrate().await.unwrap();
    assert_eq!(columns(storage.connection()).await, once);
}

#[tokio::test]
async fn migrations_go_up_and_down_on_a_server() {
    let Some(fresh) = lime_conformance::or_skip(TestDatabase::empty().await) else { return };
    up_twice_and_down(&open(&fresh).await).await;
}

#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn migrations_go_up_and_down_embedded() {
    let embedded = lime_storage_postgres::Embedded::temporary().await.unwrap();
    up_twice_and_down(&embedded.storage()).await;
    embedded.close().await.unwrap();
}
