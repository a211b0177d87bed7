//! The suite of [`Storage`](lime_core::ports::Storage): stores, queue and event log.
//!
//! - The queue is one for all tenants, so each test wants a storage for itself.

pub mod entities;
pub mod events;
pub mod queue;
pub mod stores;

/// Makes a test of each storage test, on what the expression gives: an `Option<Subject>` in a future, where `None`
/// means that the part is missing; the expression says so visibly itself.
#[macro_export]
macro_rules! storage_suite {
    ($make:expr) => {
        $crate::storage_tests!(@each $make);
    };
}

macro_rules! list {
    ($d:tt $($module:ident: $($test:ident)+;)+) => {
        /// Calls back for each test; see [`storage_suite!`].
        #[doc(hidden)]
        #[macro_export]
        macro_rules! storage_tests {
            (@each $d make:expr) => {
                $(mod $module {
                    #[allow(unused_imports, reason = "the expression may name what is outside")]
                    use super::*;
                    $(#[tokio::test]
                    async fn $test() {
                        if let Some(subject) = $d make.await {
                            $crate::storage::$module::$test(subject).await;
                        }
                    })+
                })+
            };
        }
    };
}

list! { $
    stores:
        missing_and_foreign_look_the_same
        lists_only_its_own_in_order
        pages_neither_skip_nor_repeat
        filters_by_every_kind_of_value
        updates_are_compare_and_set
        deletes_are_compare_and_set
        unique_values_are_unique_in_the_tenant
        references_must_be_there_and_ours
        deleting_takes_what_belongs_to_it
        broken_rules_are_refused
        a_fenced_write_needs_its_lease
        one_of_many_concurrent_updates_wins
        tenants_have_unique_slugs;
    entities:
        a_user_comes_back_as_it_was
        a_project_comes_back_as_it_was
        a_board_comes_back_as_it_was
        a_ticket_comes_back_as_it_was
        a_repository_comes_back_as_it_was
        a_worktree_comes_back_as_it_was
        a_code_diff_comes_back_as_it_was
        a_step_comes_back_as_it_was
        a_tool_call_comes_back_as_it_was
        a_run_comes_back_as_it_was;
    queue:
        a_submitted_run_waits
        a_run_is_leased_once
        the_longest_waiting_goes_first
        runs_of_other_providers_wait_on
        concurrent_claims_share_nothing
        a_heartbeat_extends_the_lease
        a_lost_lease_is_stale_for_every_write
        a_lost_run_is_taken_up_again
        a_run_that_loses_its_workers_fails
        settling_ends_the_run_once
        usage_adds_up_over_attempts
        releasing_is_not_a_crash
        cancelling_a_waiting_run_is_at_once
        cancelling_a_running_one_reaches_its_worker
        cancelling_twice_or_late_changes_nothing
        a_cancelled_run_is_not_handed_back
        progress_changes_only_what_is_given;
    events:
        positions_have_no_gap
        concurrent_appends_have_no_gap
        reading_goes_on_from_a_position
        a_forged_lease_appends_nothing
        texts_are_bounded
        another_tenant_sees_no_log
        a_subscriber_sees_everything_once_and_then_the_end
        a_subscriber_goes_on_where_it_broke_off
        ephemeral_events_are_seen_and_not_kept
        every_event_comes_back_as_it_was;
}
