//! The suite of [`Storage`](lime_core::ports::Storage): stores, queue, event log and questions to people.
//!
//! - The line is one for all tenants, so each test wants a storage for itself.
//! - Nothing but the ports is asked for. A queue may need a moment until what was submitted can be taken, so
//!   everything that must happen is waited for; what must not happen is looked for at once.

pub mod api_keys;
pub mod approvals;
pub mod budgets;
pub mod ends;
pub mod entities;
pub mod events;
pub mod inputs;
pub mod instructions;
pub mod leases;
pub mod limits;
pub mod line;
pub mod questions;
pub mod records;
pub mod requests;
pub mod secrets;
pub mod sign_in;
pub mod stores;
pub mod subscriptions;
pub mod tenants;
pub mod work;

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
        finds_many_by_their_ids
        updates_are_compare_and_set
        deletes_are_compare_and_set
        unique_values_are_unique_in_the_tenant
        references_must_be_there_and_ours
        deleting_takes_what_belongs_to_it
        broken_rules_are_refused
        a_fenced_write_needs_its_lease
        one_of_many_concurrent_updates_wins
        tenants_have_unique_slugs
        a_tenant_limits_its_runs;
    entities:
        a_user_comes_back_as_it_was
        a_project_comes_back_as_it_was
        a_board_comes_back_as_it_was
        a_ticket_comes_back_as_it_was
        a_repository_comes_back_as_it_was
        a_worktree_comes_back_as_it_was
        a_code_diff_comes_back_as_it_was
        an_approval_policy_comes_back_as_it_was;
    instructions:
        a_custom_instruction_comes_back_as_it_was
        instructions_have_rules
        a_default_instruction_comes_back_as_it_was
        default_tools_come_back_as_they_were
        a_repository_config_comes_back_as_it_was
        a_run_has_the_layers_of_what_it_is_about
        a_layer_says_where_it_comes_from
        instructions_go_with_what_they_are_for;
    work:
        a_step_comes_back_as_it_was
        a_tool_call_comes_back_as_it_was
        an_effect_comes_back_as_it_was
        an_input_comes_back_as_it_was
        a_run_comes_back_as_it_was
        a_run_goes_on_from_one_that_is_there
        an_effect_is_written_down_once
        the_rules_of_work_hold;
    line:
        a_submitted_run_waits
        many_are_submitted_in_order
        all_or_none_are_submitted
        a_unique_key_is_one_live_run
        two_of_a_list_with_one_key_are_one_run
        a_unique_key_is_free_after_the_end
        concurrent_submits_of_a_key_are_one_run
        the_longest_waiting_goes_first
        the_greater_priority_goes_first
        a_run_waits_for_its_time
        runs_of_other_providers_wait_on
        nothing_is_taken_where_nothing_waits
        finishing_takes_the_place_and_sweeping_gives_it_back
        finishing_leaves_what_has_begun
        the_depth_tells_where_runs_are
        a_submission_wakes_who_waits;
    limits:
        a_tenant_with_many_does_not_starve_one_with_few
        tenants_with_the_fewest_at_work_come_first
        a_project_with_many_does_not_starve_one_with_few
        a_tenants_limit_is_never_passed
        a_projects_limit_is_never_passed
        an_agent_works_one_run_at_a_time
        what_is_put_down_makes_room
        limits_hold_among_concurrent_workers;
    leases:
        a_run_is_leased_once
        concurrent_claims_share_nothing
        what_is_taken_has_not_begun
        what_is_taken_and_not_begun_goes_back
        starting_begins_an_attempt_once
        starting_leaves_out_what_was_lost_cancelled_or_paused
        starting_extends_the_lease
        a_heartbeat_extends_the_lease
        a_lost_lease_is_stale_for_every_write
        a_lease_that_has_not_begun_writes_nothing
        a_lost_run_is_taken_up_again
        a_run_that_loses_its_workers_fails
        a_released_run_has_lost_no_worker;
    ends:
        settling_ends_the_run_once
        concurrent_settlements_count_once
        every_outcome_has_its_state
        usage_adds_up_over_attempts
        releasing_is_not_a_crash
        a_retry_waits_for_its_pause
        a_retry_waits_for_the_word_of_the_provider_within_a_day
        a_run_that_waits_for_a_person_can_end
        what_has_ended_has_no_place;
    requests:
        cancelling_a_waiting_run_is_at_once
        cancelling_a_running_one_reaches_its_worker
        a_cancelled_run_is_not_handed_back
        pausing_a_waiting_run_is_at_once
        pausing_a_running_one_reaches_its_worker
        a_lost_run_is_paused_if_that_was_asked
        a_pause_is_taken_back
        a_cancellation_beats_a_pause
        a_paused_run_keeps_its_time
        requeueing_forgives
        requeueing_minds_the_unique_key
        asking_for_what_is_so_changes_nothing
        what_the_state_does_not_allow_is_a_conflict
        a_request_wakes_the_worker
        a_fenced_request_needs_its_lease;
    inputs:
        what_is_said_waits_for_the_worker
        what_is_said_is_counted_over_attempts
        nothing_is_said_to_a_run_that_has_ended
        what_is_said_has_rules
        what_is_said_wakes_the_worker;
    events:
        positions_have_no_gap
        concurrent_appends_have_no_gap
        reading_goes_on_from_a_position
        a_forged_lease_appends_nothing
        texts_are_bounded
        another_tenant_sees_no_log
        every_event_comes_back_as_it_was;
    records:
        a_record_keeps_steps_and_tool_calls
        a_key_that_is_known_is_replaced
        the_last_of_a_key_counts
        a_record_is_kept_whole_or_not_at_all
        what_an_agent_said_may_hold_nul
        what_belongs_to_another_run_is_refused
        events_belong_to_a_step_that_is_known
        a_stale_record_keeps_nothing
        progress_changes_only_what_is_given;
    secrets:
        a_data_key_comes_back_as_it_was
        a_set_of_variables_comes_back_as_it_was
        a_sealed_value_comes_back_as_it_was
        an_id_is_drawn_once
        a_key_in_use_is_held;
    subscriptions:
        a_subscriber_sees_everything_once_and_then_the_end
        a_subscriber_goes_on_where_it_broke_off
        a_slow_subscriber_misses_nothing
        a_subscription_after_the_end_ends
        a_subscription_goes_on_over_a_requeue
        a_subscriber_hears_of_what_people_do
        ephemeral_events_are_seen_and_not_kept
        ephemeral_events_keep_their_place;
    questions:
        a_question_is_asked_once
        concurrent_questions_are_one
        another_payload_voids_the_question
        a_void_question_is_asked_anew
        a_question_has_rules
        a_question_may_hold_nul
        a_question_survives_a_lost_worker
        an_answer_waits_for_the_next_worker
        a_question_survives_a_pause
        the_end_voids_what_is_open
        a_stale_worker_asks_nothing;
    approvals:
        a_person_approves
        a_person_denies
        one_of_many_concurrent_answers_counts
        a_question_that_is_closed_takes_no_answer
        nobody_answers_in_time
        only_approvers_answer
        a_note_has_its_limit
        missing_and_foreign_questions_look_the_same
        the_run_goes_on_when_nothing_is_open
        an_answer_wakes_the_worker
        a_person_with_answers_stays;
    tenants:
        a_tenant_is_updated
        a_deleted_tenant_is_gone
        the_runs_of_a_deleted_tenant_are_left_alone
        a_deleted_tenant_disturbs_no_other
        a_tenant_has_the_built_in_roles
        seeding_leaves_a_tenants_own_roles_alone
        a_role_comes_back_as_it_was
        a_role_is_assigned_once
        a_run_knows_who_started_it
        nobody_is_a_member_of_a_deleted_tenant;
    api_keys:
        a_key_comes_back_as_it_was
        a_prefix_is_one_key_of_all_tenants
        a_key_is_found_with_its_owner
        a_use_is_noted_once
        a_hash_is_renewed
        a_key_is_revoked_for_good
        a_key_goes_with_whom_it_belongs_to
        nothing_shows_a_key;
    sign_in:
        an_address_is_one_person
        a_person_is_a_user_of_each_of_their_tenants
        a_session_is_found_by_its_token
        a_session_lets_into_the_tenants_of_its_person
        a_session_ends_at_its_time
        sessions_are_ended;
    budgets:
        a_budget_comes_back_as_it_was
        what_is_in_force_is_the_tenants
        what_is_held_is_a_level_and_what_is_used_a_total
        all_budgets_admit_or_none
        a_limit_that_stops_nothing_only_warns
        a_soft_limit_warns_once_a_period
        a_lowered_limit_refuses_who_holds
        concurrent_admissions_never_pass_the_limit
        what_is_held_goes_with_the_lease
        what_a_lost_worker_held_is_freed
        what_is_worked_is_not_taken_back
        runs_count_when_they_end
        standings_tell_each_period
        a_deleted_run_holds_nothing
        budgets_of_others_are_not_there;
}
