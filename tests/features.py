"""Which test shows what: the table behind docs/reference/features.md.  Data only: it does not know how the tests are found or the page is made."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A capability, or a fault that must not exist: what it is, and the tests that show it."""

    id: str
    title: str
    tests: tuple[str, ...] = ()
    """As `file::name` or `file::Class::name`."""
    missing: str = ""
    """What the tests do not show yet, in a sentence; empty where nothing is missing."""
    outside: str = ""
    """Why there is nothing to show here."""


ENGINE: tuple[Row, ...] = (
    Row(
        "E1",
        "Flows are declared in code and compile, the same way every time, into a graph that cannot be changed",
        (
            "tests/test_flow.py::test_the_networkx_graph_has_every_node_and_edge_with_its_kind",
            "tests/test_flow.py::test_the_networkx_graph_cannot_be_changed",
            "tests/test_flow.py::test_compiling_twice_gives_the_same_graph",
            "tests/test_flow.py::test_changing_the_flow_does_not_change_a_compiled_graph",
            "tests/test_flow.py::test_the_plan_and_the_definition_cannot_be_changed_from_outside",
            "tests/test_flow.py::test_two_edges_between_the_same_nodes_both_stand_in_the_graph",
            "tests/test_flow.py::test_a_decorated_function_stays_what_it_is",
        ),
    ),
    Row(
        "E2",
        "Every mistake in a flow is told before anything runs, all of them in one error",
        (
            "tests/test_validation.py::test_a_mistake_is_told_in_a_sentence_that_names_it",
            "tests/test_validation.py::test_a_flow_with_every_kind_of_mistake_tells_them_all_at_once",
            "tests/test_flow.py::test_all_problems_come_in_one_error_that_names_the_flow",
            "tests/test_validation.py::test_a_declared_goto_with_an_edge_is_no_problem",
        ),
    ),
    Row(
        "E3",
        "What is doubtful in a flow (circles without a cap, dead ends) is a list of warnings",
        (
            "tests/test_validation.py::test_a_self_loop_is_a_cycle_without_protection",
            "tests/test_validation.py::test_a_cap_on_a_node_or_an_edge_protects_a_cycle",
            "tests/test_validation.py::test_a_cap_that_leaves_another_circle_open_does_not_protect",
            "tests/test_validation.py::test_a_cycle_that_only_a_failure_leaves_is_told",
            "tests/test_validation.py::test_a_fallback_that_closes_a_cycle_is_told",
            "tests/test_validation.py::test_a_node_with_conditions_only_may_be_a_dead_end",
            "tests/test_validation.py::test_a_node_with_a_fallback_only_may_be_a_dead_end",
        ),
    ),
    Row(
        "E4",
        "A hash names everything that decides how a run goes, and no words about it",
        (
            "tests/test_graph_hash.py::test_a_change_of_how_a_run_goes_changes_the_hash_and_is_shown",
            "tests/test_graph_hash.py::test_all_those_changes_are_different_ones",
            "tests/test_graph_hash.py::test_words_and_order_of_declaration_do_not_change_the_hash",
            "tests/test_graph_hash.py::test_the_version_of_a_reducer_changes_the_hash",
            "tests/test_graph_hash.py::test_the_hash_is_a_sha_256_of_the_stored_definition",
            "tests/test_graph_hash.py::test_a_known_flow_keeps_its_hash",
        ),
    ),
    Row(
        "E5",
        "The way on: conditions in their order, then the normal edge, then a fallback, else an error that names each condition, asked once",
        (
            "tests/test_flow.py::test_conditions_are_asked_by_priority_and_then_as_declared",
            "tests/unit/test_routing.py::test_the_way_on",
            "tests/unit/test_routing.py::test_no_way_on",
            "tests/test_walking.py::test_no_way_on_names_every_condition_each_asked_once",
        ),
    ),
    Row(
        "E6",
        "A node may choose its own way, along a declared edge whose condition holds, or end the run",
        (
            "tests/unit/test_routing.py::test_goto",
            "tests/test_walking.py::test_goto_needs_an_edge_and_its_condition_unless_forced",
            "tests/unit/test_decide.py::test_end_ends_here_although_edges_lead_on",
            "tests/test_walking.py::test_end_in_a_branch_ends_the_branch_alone",
        ),
    ),
    Row(
        "E7",
        "Errors, timeouts and giving up lead to a fallback edge that takes them; the step is closed and told as degraded",
        (
            "tests/unit/test_routing.py::test_which_fallback_takes_which_error",
            "tests/test_walking.py::test_a_sync_node_that_outlives_its_timeout_can_do_nothing_and_its_fallback_does_not_wait_for_it",
            "tests/test_walking.py::test_what_a_node_gives_with_its_fallback_is_kept",
            "tests/test_walking.py::test_a_value_that_cannot_be_stored_takes_the_fallback",
            "tests/test_events.py::test_a_fallback_is_told_as_degraded_and_the_step_as_failed",
        ),
    ),
    Row(
        "E8",
        "The step limit counts over the whole life of a run and is raised only by saying so",
        (
            "tests/test_walking.py::test_exactly_as_many_entries_as_allowed_are_made",
            "tests/test_walking.py::test_the_limit_counts_over_the_life_of_the_run_and_is_raised_by_name",
            "tests/test_cli.py::test_a_run_at_its_step_limit_ends_with_4_and_goes_on_with_a_larger_one",
        ),
    ),
    Row(
        "E9",
        "Nodes and edges may be capped, and the counts survive a restart",
        (
            "tests/unit/test_decide.py::test_a_node_that_was_entered_too_often_takes_its_fallback",
            "tests/test_walking.py::test_each_of_two_capped_edges_between_the_same_nodes_has_a_count_of_its_own",
            "tests/test_slips.py::test_a_visit_cap_says_what_it_counts_and_what_to_do",
            "tests/laws/test_walk_laws.py::test_a_run_that_is_reloaded_after_any_checkpoint_ends_as_if_it_had_not_been",
        ),
    ),
    Row(
        "E10",
        "Coroutines are awaited and plain functions run in threads, with timeouts, retries and prompt cancellation",
        (
            "tests/test_walking.py::test_async_and_sync_nodes_run_one_after_the_other_and_are_counted",
            "tests/test_walking.py::test_an_async_node_that_takes_too_long_fails_with_its_time",
            "tests/test_walking.py::test_a_retry_waits_for_the_thread_of_the_attempt_that_timed_out",
            "tests/test_walking.py::test_a_failed_node_is_tried_again_with_the_same_key_and_the_next_number",
            "tests/unit/test_retry.py::test_each_wait_is_longer_up_to_the_longest",
            "tests/test_walking.py::test_cancelling_a_running_body_ends_the_run_and_waits_for_the_body",
            "tests/test_walking.py::test_a_body_that_ignores_its_cancellation_holds_nothing_longer_than_the_grace",
        ),
    ),
    Row(
        "E11",
        "A checkpoint holds small changes of single keys, and says by whom",
        (
            "tests/unit/test_fold.py::test_a_value_op_makes_of_a_key_what_it_says",
            "tests/unit/test_joins.py::test_a_deletion_counts_where_it_stands",
            "tests/test_reducers.py::test_each_reducer_answers_with_the_smallest_change",
            "tests/test_walking.py::test_history_says_what_every_checkpoint_did",
            "tests/test_cli.py::test_steps_tell_node_branch_change_and_time",
            "tests/test_schema.py::test_a_key_that_holds_nothing_answers_with_its_default_or_says_so",
        ),
    ),
    Row(
        "E12",
        "One rule of merging per key, whoever writes: one node, the next, or branches side by side",
        (
            "tests/unit/test_joins.py::test_the_branches_of_a_node_merge_like_one_writer_after_the_other_in_declared_order",
            "tests/unit/test_joins.py::test_a_branchs_writes_count_one_by_one",
            "tests/test_walking.py::test_branches_merge_in_declared_order_whoever_is_first",
            "tests/laws/test_walk_laws.py::test_the_order_in_which_branches_end_changes_nothing",
        ),
    ),
    Row(
        "E13",
        "Reducers for every ordinary need, one's own by name, and wrong types refused by name",
        (
            "tests/test_reducers.py::test_each_reducer_answers_with_the_smallest_change",
            "tests/test_reducers.py::test_a_wrong_type_is_refused_by_name",
            "tests/test_reducers.py::test_summing_ints_gives_an_int_and_summing_decimals_stays_exact",
            "tests/test_reducers.py::test_every_built_in_is_reachable_from_the_public_module",
            "tests/laws/test_reducer_laws.py::test_the_order_of_writes_does_not_matter_to_a_commuting_reducer",
            "tests/test_reducers.py::test_a_custom_reducer_may_return_the_new_value",
            "tests/unit/test_joins.py::test_a_reducer_that_refuses_names_the_branch_that_wrote",
        ),
    ),
    Row(
        "E14",
        "Two branches that write one plain key are an error that names both and changes nothing",
        (
            "tests/test_walking.py::test_two_branches_that_write_one_plain_key_merge_nothing",
            "tests/unit/test_joins.py::test_a_key_without_a_reducer_takes_one_branch_however_often_it_wrote",
            "tests/unit/test_joins.py::test_joining_changes_nothing",
        ),
    ),
    Row(
        "E15",
        "Branches have names, a limit of how many run at once, times and events of their own, and may be whole flows",
        (
            "tests/test_flow.py::test_branches_may_be_named",
            "tests/test_walking.py::test_no_more_bodies_run_at_once_than_allowed",
            "tests/unit/test_decide.py::test_a_branch_that_takes_too_long_fails_with_everything_in_it",
            "tests/test_events.py::test_branches_are_told_with_their_path_and_their_own_step_index",
            "tests/test_flow.py::test_a_flow_may_be_a_branch_and_take_its_parents_state",
            "tests/test_events.py::test_the_end_counts_what_branches_did_as_well",
        ),
    ),
    Row(
        "E16",
        "The first failure in time cancels the other branches, and nothing of them works on",
        (
            "tests/test_walking.py::test_the_first_failure_cancels_the_other_branches_and_waits_for_them",
            "tests/unit/test_decide.py::test_the_first_failure_closes_the_others_and_withdraws_their_tickets",
            "tests/test_walking.py::test_a_branch_that_ignores_its_cancellation_holds_the_failure_of_its_sibling_no_longer_than_the_grace",
        ),
    ),
    Row(
        "E17",
        "Or all branches are waited for, and enough successes are enough; failures are data, or one error with all of them",
        (
            "tests/test_walking.py::test_collect_waits_for_all_and_raises_all",
            "tests/test_walking.py::test_best_effort_goes_on_with_what_succeeded_and_shows_what_did_not",
            "tests/unit/test_joins.py::test_when_a_parallel_node_has_failed",
            "tests/unit/test_joins.py::test_failed_branches_write_nothing_but_their_failure",
        ),
    ),
    Row(
        "E18",
        "A ticket is named by its barrier and the visit, before and after a resume",
        (
            "trailmark/testing/promises/tickets.py::TicketContract::test_the_next_visit_of_a_barrier_is_another_ticket",
            "tests/test_walking.py::test_an_early_decision_is_used_for_the_first_visit_only",
            "tests/unit/test_barriers.py::test_a_ticket_can_be_made_again_from_what_the_checkpoint_keeps",
            "tests/test_walking.py::test_a_run_waits_for_a_decision_and_goes_on_in_another_process",
        ),
    ),
    Row(
        "E19",
        "Approve, reject, modify, reroute and skip are five different records; what a rejection does is declared",
        (
            "trailmark/testing/promises/decisions.py::DecisionContract::test_each_action_is_kept_as_what_it_is",
            "tests/test_walking.py::test_modify_writes_and_approves_only_where_it_says_so",
            "tests/test_flow.py::test_what_a_rejection_does_follows_from_the_edges_unless_it_is_said",
            "tests/unit/test_decide.py::test_where_a_rejection_leads",
            "tests/test_walking.py::test_a_rejection_takes_no_edge_that_does_not_name_it",
            "tests/unit/test_decide.py::test_a_reroute_goes_where_it_says_whatever_the_condition",
        ),
    ),
    Row(
        "E20",
        "A decision may come early, counts once, cannot be contradicted, and an unknown barrier is an error",
        (
            "trailmark/testing/promises/early_decisions.py::EarlyDecisionContract::test_a_decision_may_come_before_its_ticket",
            "tests/test_walking.py::test_a_decision_may_come_before_the_barrier_is_reached",
            "trailmark/testing/promises/decisions.py::DecisionContract::test_the_same_decision_again_returns_the_stored_one",
            "trailmark/testing/promises/decisions.py::DecisionContract::test_another_decision_conflicts_and_names_the_winner",
            "trailmark/testing/promises/tickets.py::TicketContract::test_an_unknown_barrier_lists_the_known_ones",
        ),
    ),
    Row(
        "E21",
        "Decisions in advance for many tickets are limited, expire, can be listed and taken back, and are recorded",
        (
            "tests/test_grants.py::test_a_run_goes_through_a_barrier_that_was_allowed_in_advance",
            "trailmark/testing/grant_contract.py::GrantContract::test_an_allowance_decides_the_next_tickets_and_no_more",
            "tests/test_grants.py::test_each_visit_of_a_loop_uses_an_allowance_of_its_own",
            "tests/test_grants.py::test_a_decision_made_for_somebody_says_so_to_later_nodes_and_in_the_chain",
            "tests/test_grants.py::test_the_tickets_of_a_fork_are_left_to_people",
            "trailmark/testing/grant_contract.py::GrantContract::test_an_allowance_ends_by_the_stores_clock",
            "trailmark/testing/grant_contract.py::GrantContract::test_a_revoked_allowance_decides_nothing_more",
            "trailmark/testing/grant_contract.py::GrantContract::test_grants_are_listed_oldest_first_and_by_what_they_are_for",
            "trailmark/testing/grant_contract.py::GrantContract::test_tickets_that_open_at_once_never_use_more_than_there_is",
        ),
    ),
    Row(
        "E22",
        "A deadline is an absolute time that holds although nobody drove the run, and what follows is signed by nobody",
        (
            "tests/test_walking.py::test_a_deadline_is_nobodys_decision",
            "tests/test_walking.py::test_a_deadline_that_passed_while_nobody_drove_the_run_holds_when_somebody_does",
            "tests/unit/test_decide.py::test_a_deadline_makes_the_declared_default_and_signs_it_as_nobody",
            "tests/test_walking.py::test_a_decision_made_in_time_wins_over_the_deadline_whoever_reads_first",
        ),
    ),
    Row(
        "E23",
        "A run is cancelled at a barrier at once; nothing is approved by that, nor by the loss of whoever waited",
        (
            "tests/test_walking.py::test_cancelling_at_a_barrier_ends_the_run_and_decides_nothing",
            "tests/test_walking.py::test_cancelling_wins_over_a_run_that_parks_in_the_same_moment",
            "tests/acceptance/test_messages_between_processes.py::test_a_run_at_a_barrier_is_cancelled_from_another_process_and_nothing_is_approved",
            "tests/acceptance/test_messages_between_processes.py::test_a_run_attached_at_a_barrier_is_cancelled_from_another_process",
            "tests/acceptance/test_messages_between_processes.py::test_a_process_killed_while_it_waits_at_a_barrier_takes_nothing_with_it",
        ),
    ),
    Row(
        "E24",
        "A waiting run needs no memory: another process goes on with it",
        (
            "tests/test_walking.py::test_a_run_waits_for_a_decision_and_goes_on_in_another_process",
            "tests/test_cli_processes.py::test_a_run_parks_is_approved_by_another_process_and_completed_by_a_third",
            "tests/test_walking.py::test_closing_the_executor_suspends_what_it_drives",
        ),
    ),
    Row(
        "E25",
        "What happens in a run is told as events",
        (
            "tests/test_events.py::test_a_run_tells_its_steps_in_order_and_ends_with_one_terminator",
            "tests/laws/test_walk_laws.py::test_the_log_of_any_run_is_a_valid_stream_wherever_it_is_reloaded",
            "tests/laws/test_walk_laws.py::test_what_a_run_tells_live_is_what_its_log_tells_however_slow_the_consumer",
        ),
    ),
)

KEEPING: tuple[Row, ...] = (
    Row(
        "K1",
        "A checkpoint says where the run goes on, and is written in one transaction with what changed",
        (
            "trailmark/testing/promises/commits.py::CommitContract::test_a_commit_is_read_back_as_it_was",
            "trailmark/testing/promises/commits.py::CommitContract::test_a_commit_of_several_rows_keeps_their_order",
            "trailmark/testing/promises/commits.py::CommitContract::test_a_transition_changes_the_run_and_moves_the_anchor",
            "tests/unit/test_fold.py::test_the_columns_of_a_row_move_the_scope_and_count_the_entry",
            "tests/acceptance/test_killed_processes.py::test_a_process_killed_beside_a_commit",
            "tests/acceptance/test_killed_processes.py::test_a_process_killed_in_the_middle_of_a_statement_of_sqlite",
        ),
    ),
    Row(
        "K2",
        "What is stored is what really changed: folding it gives the live state, always",
        (
            "tests/laws/test_walk_laws.py::test_the_live_state_is_the_restored_one_after_every_batch_whatever_happens_first",
            "tests/laws/test_walk_laws.py::test_a_run_can_be_reloaded_after_any_checkpoint_where_time_and_order_matter_too",
            "tests/laws/test_walk_laws.py::test_a_driven_run_ends_the_same_however_often_its_process_dies",
        ),
    ),
    Row(
        "K3",
        "Snapshots now and then; a run is the newest good one and what follows; rows are small",
        (
            "tests/test_walking.py::test_a_long_run_whose_state_stays_small_is_loaded_from_a_snapshot",
            "trailmark/testing/promises/loading.py::LoadingContract::test_load_begins_at_the_newest_snapshot",
            "tests/test_sql_store.py::test_an_edited_snapshot_is_not_used_and_is_reported",
            "tests/test_sql_store.py::test_the_bytes_beside_a_payload_stay_below_200_a_row",
            "tests/test_events.py::test_a_node_that_says_nothing_stores_nothing_of_it",
        ),
    ),
    Row(
        "K4",
        "Old checkpoints can be folded into a snapshot without harm to those that are kept, also where that is interrupted",
        (
            "tests/test_sql_store.py::test_a_pruned_run_is_loaded_from_its_snapshot_and_goes_on",
            "tests/test_pruning.py::test_a_cut_run_verifies_resumes_and_forks_as_before",
            "tests/test_pruning.py::test_a_run_is_cut_while_it_goes_on",
            "trailmark/testing/promises/pruning.py::PruningContract::test_rows_are_dropped_behind_a_snapshot_and_the_chain_goes_on_from_it",
            "tests/acceptance/test_killed_pruning.py::test_a_process_killed_while_it_prunes_leaves_every_run_whole",
        ),
    ),
    Row(
        "K5",
        "One may choose when checkpoints are written",
        (
            "tests/test_saving.py::test_a_policy_delays_rows_and_changes_none_of_them",
            "tests/test_saving.py::test_a_crash_takes_what_the_policy_lets_it_and_nothing_more",
            "tests/test_saving.py::test_a_checkpoint_that_is_asked_for_is_made_under_every_policy",
        ),
    ),
    Row(
        "K6",
        "Checkpoints may follow from a score of time, tokens and side effects",
        (
            "tests/test_saving.py::test_a_policy_delays_rows_and_changes_none_of_them",
            "tests/test_saving.py::test_each_weight_alone_brings_a_checkpoint_about",
        ),
    ),
    Row(
        "K7",
        "Whatever a run stops for, it was written before: a barrier, a decision, a failure, a cancellation, a suspension, its end",
        (
            "tests/test_walking.py::test_history_says_what_every_checkpoint_did",
            "tests/test_walking.py::test_an_error_that_the_retry_does_not_name_is_not_tried_again",
            "tests/unit/test_decide.py::test_a_vote_that_decides_leads_on_and_is_consumed_in_the_same_checkpoint",
            "tests/unit/test_decide.py::test_cancelling_withdraws_every_ticket_and_decides_nothing",
            "tests/unit/test_decide.py::test_suspending_leaves_tickets_open_and_the_place_as_it_was",
            "tests/unit/test_decide.py::test_the_last_step_ends_the_run",
        ),
    ),
    Row(
        "K8",
        "A checkpoint that cannot be written stops the run and is told; nothing is lost for the next try",
        (
            "tests/test_sql_store.py::test_a_full_disk_refuses_the_commit_and_keeps_the_run",
            "tests/acceptance/test_bad_days.py::test_a_disk_that_is_full_loses_nothing",
            "tests/acceptance/test_bad_days.py::test_a_file_that_becomes_read_only_loses_nothing",
            "tests/test_events.py::test_whatever_stops_the_drive_is_raised_to_those_who_listen",
            "tests/test_saving.py::test_an_outage_is_told_and_lasts_until_the_store_is_back",
            "tests/test_saving.py::test_a_run_that_must_be_saved_and_cannot_stops",
        ),
    ),
    Row(
        "K9",
        "Stores in memory, SQLite and PostgreSQL keep one and the same contract, with migrations",
        (
            "trailmark/testing/promises/creating.py::CreationContract::test_a_run_key_names_one_run_of_a_flow",
            "tests/test_sql_store.py::test_synchronous_is_what_was_asked_for",
            "tests/test_sql_store.py::test_what_people_ask_often_is_one_index_range",
            "tests/test_migrations.py::test_all_migrations_make_what_the_metadata_says",
            "tests/test_migrations.py::test_a_newer_schema_is_refused_and_left_alone",
            "tests/acceptance/test_bad_days.py::test_an_older_schema_is_refused_until_it_is_upgraded",
            "tests/test_migrations.py::test_tables_of_migrations_and_of_first_use_are_alike_down_to_their_indexes",
            "tests/test_cli.py::test_the_same_commands_work_on_postgresql",
            "tests/test_sql_store.py::test_no_connection_of_ours_writes_a_line_of_a_run_there_is_not",
        ),
    ),
    Row(
        "K10",
        "One process at a time drives a run; one that lost it writes nothing",
        (
            "tests/acceptance/test_rival_processes.py::test_of_two_processes_that_resume_one_run_exactly_one_wins",
            "trailmark/testing/promises/commits.py::CommitContract::test_a_stale_epoch_writes_nothing",
            "trailmark/testing/promises/leases.py::LeaseContract::test_takeover_takes_a_living_lease_and_fences_the_old_owner",
            "tests/acceptance/test_rival_processes.py::test_a_process_that_slept_past_its_lease_inside_a_node_can_write_nothing",
            "tests/test_walking.py::test_a_process_that_lost_its_lease_writes_nothing_more",
        ),
    ),
    Row(
        "K11",
        "A run goes on with its own graph, with another only where that is allowed, from any checkpoint; an ended run is not run again",
        (
            "tests/test_walking.py::test_a_finished_run_returns_its_stored_result_without_running_anything",
            "tests/test_walking.py::test_a_fork_can_be_made_at_any_checkpoint_of_a_run_and_ends_like_it",
            "tests/test_walking.py::test_a_place_that_the_new_graph_does_not_have_is_refused_even_with_force",
            "trailmark/testing/promises/loading.py::LoadingContract::test_load_stops_at_the_seq_that_is_asked_for",
            "tests/test_graph_hash.py::test_a_difference_is_told_in_readable_lines",
            "tests/test_walking.py::test_a_change_ahead_is_gone_on_with_and_recorded_and_strict_refuses_it_with_what_changed",
            "tests/test_changed_graphs.py::test_a_run_is_refused_with_the_reason_where_what_is_under_way_has_changed_and_force_is_recorded",
            "tests/test_changed_graphs.py::test_no_force_takes_a_run_that_has_no_place",
            "tests/laws/test_walk_laws.py::test_a_run_that_is_judged_to_have_a_place_in_a_changed_graph_goes_on_with_it_to_its_end",
            "tests/test_flow_migrations.py::test_a_run_goes_over_in_one_checkpoint_with_its_ticket_and_the_votes_for_it",
        ),
    ),
    Row(
        "K12",
        "A resumed run is the same run: its number, counts, log, visits, decisions and deadlines",
        (
            "tests/test_walking.py::test_a_run_waits_for_a_decision_and_goes_on_in_another_process",
            "tests/test_walking.py::test_the_limit_counts_over_the_life_of_the_run_and_is_raised_by_name",
            "tests/test_events.py::test_ids_rise_over_the_whole_life_of_a_run",
            "tests/test_walking.py::test_a_deadline_that_passed_while_nobody_drove_the_run_holds_when_somebody_does",
            "tests/laws/test_walk_laws.py::test_a_run_that_is_reloaded_after_any_checkpoint_ends_as_if_it_had_not_been",
            "trailmark/testing/promises/inbox.py::InboxContract::test_consumed_decisions_leave_the_inbox",
            "tests/test_grants.py::test_a_process_that_died_between_the_opening_and_its_reading_goes_on_with_what_was_allowed",
        ),
    ),
    Row(
        "K13",
        "A run can be forked at any checkpoint, with other values; the original stays as it is",
        (
            "tests/test_walking.py::test_a_fork_stands_where_the_original_stood_and_leaves_it_alone",
            "tests/test_walking.py::test_a_fork_can_be_made_at_any_checkpoint_of_a_run_and_ends_like_it",
            "tests/test_walking.py::test_a_fork_with_edits_shows_people_what_was_edited",
            "trailmark/testing/promises/loading.py::LoadingContract::test_a_fork_stands_on_its_parents_digest",
        ),
    ),
    Row(
        "K14",
        "Old runs and checkpoints go by rule, and never what something kept needs",
        (
            "tests/test_pruning.py::test_runs_that_ended_long_ago_go_with_everything_and_the_others_stay",
            "tests/test_pruning.py::test_the_newest_runs_of_each_flow_stay_whatever_their_age",
            "tests/test_pruning.py::test_checkpoints_that_one_rule_keeps_stay",
            "tests/test_pruning.py::test_a_cut_run_verifies_resumes_and_forks_as_before",
            "trailmark/testing/promises/pruning.py::PruningContract::test_a_run_that_ended_is_deleted_with_all_that_is_kept_of_it",
        ),
    ),
    Row(
        "K15",
        "Every record carries a digest chained to the one before; cuts and edits are found and named",
        (
            "tests/test_sql_store.py::test_an_edit_of_any_column_is_found",
            "tests/test_sql_store.py::test_a_cut_at_the_end_is_found_against_the_anchor",
            "tests/test_sql_store.py::test_a_missing_row_is_found",
            "tests/test_sql_store.py::test_a_row_moved_from_another_run_is_found",
            "tests/acceptance/test_bad_days.py::test_a_damaged_checkpoint_is_named_and_what_stands_before_it_is_readable",
            "trailmark/testing/promises/finding.py::FindingContract::test_an_unknown_run_is_not_found",
        ),
    ),
    Row(
        "K16",
        "Values are stored as tagged, versioned JSON that runs no code when it is read",
        (
            "tests/laws/test_codec_laws.py::test_what_is_decoded_is_what_was_encoded",
            "tests/test_codec.py::test_the_form_of_each_tag_is_fixed",
            "tests/test_codec.py::test_an_instance_of_a_registered_class_comes_back_the_same",
            "tests/test_codec.py::test_loading_runs_no_code_of_the_class",
            "tests/laws/test_codec_laws.py::test_any_bytes_are_a_codec_error_or_data",
        ),
    ),
    Row(
        "K17",
        "Side effects have a key, are written down before and after, are not repeated, and are shown where nobody knows",
        (
            "tests/test_walking.py::test_a_failed_node_is_tried_again_with_the_same_key_and_the_next_number",
            "tests/test_effects.py::test_an_effect_that_was_done_is_not_carried_out_by_the_next_attempt",
            "tests/test_effects.py::test_an_effect_that_was_interrupted_stops_the_run_in_doubt_though_its_node_has_a_retry",
            "tests/test_effects.py::test_what_once_returns_live_is_what_it_returns_after_a_resume",
            "trailmark/testing/promises/effects.py::EffectContract::test_an_effect_tells_its_outcome_to_whoever_begins_it_again",
            "tests/test_cli_effects.py::test_a_side_effect_in_doubt_is_listed_shown_settled_and_the_run_goes_on",
            "tests/acceptance/test_payments_under_fire.py::test_a_payment_whose_process_is_killed",
        ),
    ),
)

TELLING: tuple[Row, ...] = (
    Row(
        "S1",
        "A closed catalog of events, each with its fields, the same bytes for ever",
        (
            "tests/test_event_catalog.py::test_the_corpus_holds_every_kind",
            "tests/test_event_catalog.py::test_every_kind_survives_the_way_to_json_and_back_byte_for_byte",
            "tests/test_event_catalog.py::test_the_fields_of_the_seven_are_exactly_these",
            "tests/test_event_catalog.py::test_no_field_may_be_missing_and_none_may_be_added",
            "tests/test_event_catalog.py::test_an_unknown_kind_is_rejected",
        ),
    ),
    Row(
        "S2",
        "Every kind says whether it ends a stream and whether it is about a step",
        (
            "tests/test_event_catalog.py::test_the_predicates_answer_for_every_kind",
            "tests/test_event_catalog.py::test_a_retry_is_about_a_step_and_a_resume_about_the_run",
        ),
    ),
    Row(
        "S3",
        "A checker of streams that anybody may use, and that watches the runs of the tests",
        (
            "tests/test_stream_checker.py::test_a_good_stream_passes",
            "tests/test_stream_checker.py::test_a_broken_promise_is_named",
            "tests/laws/test_walk_laws.py::test_the_log_of_any_run_is_a_valid_stream_wherever_it_is_reloaded",
            "tests/laws/test_walk_laws.py::test_what_a_run_tells_live_is_what_its_log_tells_however_slow_the_consumer",
        ),
    ),
    Row(
        "S4",
        "A run that has begun ends its stream exactly once, however it ends; one cancelled before tells nothing",
        (
            "tests/test_events.py::test_a_run_tells_its_steps_in_order_and_ends_with_one_terminator",
            "tests/test_events.py::test_a_failed_run_closes_its_step_and_masks_secrets",
            "tests/test_events.py::test_a_run_cancelled_in_the_middle_says_so_and_ends_without_success",
            "tests/test_events.py::test_a_run_cancelled_before_it_begins_tells_nothing",
            "tests/test_events.py::test_a_run_that_stops_ends_the_segment_and_says_why",
            "tests/laws/test_walk_laws.py::test_the_log_of_any_run_is_a_valid_stream_wherever_it_is_reloaded",
            "tests/test_events.py::test_what_never_becomes_a_run_is_a_typed_error_and_no_stream_that_could_stay_open",
        ),
    ),
    Row(
        "S5",
        "Tokens are counted over the whole run, events have ids, and whoever comes back misses nothing",
        (
            "tests/test_events.py::test_a_run_tells_its_steps_in_order_and_ends_with_one_terminator",
            "tests/test_events.py::test_every_attempt_is_heard_and_the_token_index_goes_on",
            "tests/test_events.py::test_a_snapshot_keeps_what_the_log_goes_on_from",
            "tests/test_events.py::test_whoever_reconnects_with_any_id_misses_nothing_that_follows",
            "tests/test_events.py::test_ids_rise_over_the_whole_life_of_a_run",
        ),
    ),
    Row(
        "S6",
        "Events of branches, items and inner flows carry the path to them; at the root there is none (a condition is an edge and no place: the steps it leads to are told by name and index)",
        (
            "tests/test_events.py::test_branches_are_told_with_their_path_and_their_own_step_index",
            "tests/test_events.py::test_items_of_a_map_and_a_flow_in_a_flow_are_told_like_branches",
            "tests/test_event_catalog.py::test_every_kind_survives_the_way_to_json_and_back_byte_for_byte",
        ),
    ),
    Row(
        "S7",
        "Names and input are checked before anything is opened or begun, and all is given back on every way out",
        (
            "tests/test_cli.py::test_a_flow_that_cannot_be_loaded_is_told_in_one_line",
            "tests/test_walking.py::test_input_that_does_not_fit_names_every_problem_and_creates_no_run",
            "tests/test_walking.py::test_a_run_of_another_flow_is_refused",
            "trailmark/testing/promises/leases.py::LeaseContract::test_closing_a_store_gives_its_leases_back",
            "tests/test_resources.py::test_a_run_has_what_its_flow_needs_open_while_it_is_driven_and_no_longer",
            "tests/test_resources.py::test_only_what_the_flow_and_the_flows_in_it_need_is_opened",
            "tests/test_resources.py::test_everything_is_given_back_however_the_drive_ends",
            "tests/test_resources.py::test_what_nobody_opens_is_told_before_anything_is_opened_or_begun",
        ),
    ),
    Row(
        "S8",
        "Input is typed; all that is wrong with it is told, and what is missing is an error",
        (
            "tests/test_schema.py::test_an_input_is_completed_by_defaults_and_validated_by_the_model",
            "tests/test_schema.py::test_every_problem_of_an_input_is_told_at_once",
            "tests/test_schema.py::test_an_update_of_an_undeclared_key_is_refused",
            "tests/test_walking.py::test_input_that_does_not_fit_names_every_problem_and_creates_no_run",
            "tests/test_binding.py::test_the_path_goes_before_the_query_and_the_query_before_the_body",
            "tests/test_binding.py::test_a_text_becomes_what_its_key_is_declared_as_even_where_the_model_is_strict",
            "tests/test_binding.py::test_all_that_is_wrong_is_told_at_once_with_where_it_came_from",
            "tests/test_binding.py::test_what_is_missing_is_an_error_that_names_it",
        ),
    ),
    Row(
        "S9",
        "The end of a run tells its steps, branches included, its tokens in and out, and its result",
        (
            "tests/test_events.py::test_a_run_tells_its_steps_in_order_and_ends_with_one_terminator",
            "tests/test_events.py::test_the_end_counts_what_branches_did_as_well",
            "tests/test_events.py::test_a_node_in_a_thread_speaks_like_any_other",
            "tests/test_walking.py::test_branches_merge_in_declared_order_whoever_is_first",
            "tests/test_events.py::test_the_end_of_a_run_tells_how_long_it_took_by_the_stores_clock_its_breaks_included",
        ),
    ),
    Row(
        "S10",
        "A slow consumer chooses: be sent everything later, drop tokens, merge them, hold the run back, or fail",
        (
            "tests/test_events.py::test_by_default_a_slow_consumer_loses_nothing_and_the_run_does_not_wait",
            "tests/test_events.py::test_drop_oldest_drops_tokens_only_and_says_how_many_of_which_step",
            "tests/test_events.py::test_degrade_makes_one_token_of_those_that_wait",
            "tests/test_events.py::test_with_pause_the_run_waits_for_its_consumer_and_the_queue_stays_small",
            "tests/test_events.py::test_fail_tells_the_consumer_and_leaves_the_run_alone",
        ),
    ),
    Row(
        "S11",
        "A consumer that leaves cancels, suspends or leaves the run alone, as it said; never completes it",
        (
            "tests/test_events.py::test_a_consumer_that_leaves_does_to_the_run_what_it_asked_for",
            "tests/test_events.py::test_leaving_a_stream_that_has_ended_does_nothing",
        ),
    ),
    Row(
        "S12",
        "Errors name their node and keep their type; what looks like a secret is hidden",
        (
            "tests/test_events.py::test_a_failed_run_closes_its_step_and_masks_secrets",
            "tests/test_event_catalog.py::test_what_looks_like_a_secret_is_hidden",
            "tests/test_slips.py::test_a_failed_run_names_the_node_it_failed_at",
            "tests/test_walking.py::test_a_failed_run_raises_with_its_result_and_its_cause",
        ),
    ),
    Row(
        "S13",
        "Events as server-sent events, with ids",
        (
            "tests/test_event_catalog.py::test_server_sent_events_carry_the_id_the_kind_and_one_line_of_data",
            "tests/test_event_catalog.py::test_server_sent_events_of_a_run_end_with_its_terminator_and_then_the_stream_is_over",
        ),
    ),
)

AROUND: tuple[Row, ...] = (
    Row(
        "X1",
        "A step knows which run it is in and what concerns it, also from deep inside what it calls",
        (
            "tests/test_walking.py::test_what_a_context_shows_cannot_be_used_to_change_the_run",
            "tests/test_maps.py::test_a_function_may_read_the_state_around_it_and_its_own_step",
            "tests/unit/test_barriers.py::test_later_nodes_can_read_who_voted",
            "tests/test_context.py::test_whatever_a_node_calls_can_ask_in_which_step_it_is",
            "tests/test_context.py::test_what_outlives_its_step_is_in_no_later_one",
            "tests/test_forking.py::test_each_part_is_the_same_step_with_a_key_of_its_own_that_every_attempt_has",
            "tests/test_forking.py::test_parts_carry_out_effects_of_one_name_each_once",
            "tests/test_forking.py::test_whatever_a_part_calls_is_told_of_that_part_and_nobody_beside_it",
            "tests/test_forking.py::test_a_part_ends_with_its_block_and_with_its_step",
        ),
    ),
    Row(
        "X2",
        "A node can ask, or wait to hear, that it is to stop, and why",
        (
            "tests/test_walking.py::test_cancelling_a_running_body_ends_the_run_and_waits_for_the_body",
            "tests/test_context.py::test_a_token_is_set_once_and_tells_children_waiters_and_other_threads",
            "tests/test_context.py::test_a_plain_node_hears_that_it_is_to_stop_and_why",
            "tests/test_context.py::test_an_async_node_in_the_drivers_own_task_hears_why_too",
            "tests/test_context.py::test_a_node_hears_that_it_is_to_stop_within_a_tenth_of_a_second",
        ),
    ),
    Row(
        "X3",
        "Branches work on what is theirs, under one log and one count of steps",
        (
            "tests/unit/test_fold.py::test_a_branch_sees_its_own_writes_and_its_parent_does_not_until_they_are_taken",
            "tests/unit/test_fold.py::test_what_a_nested_branch_wrote_is_seen_level_by_level",
            "tests/test_events.py::test_the_branch_that_begins_first_and_ends_last_keeps_its_index",
            "tests/unit/test_walk.py::test_rows_are_numbered_densely_and_chained",
        ),
    ),
    Row(
        "X4",
        "What is meant for one step is used by one step",
        (
            "tests/test_walking.py::test_an_early_decision_is_used_for_the_first_visit_only",
            "tests/test_waits.py::test_a_signal_that_comes_early_is_kept_and_each_is_used_once_the_oldest_first",
            "tests/test_walking.py::test_what_is_meant_for_one_step_is_told_to_every_attempt_of_it_and_to_no_other",
        ),
    ),
    Row(
        "X5",
        "What a step may do is compared exactly, before it does it, and refused where nobody granted it",
        (
            "tests/test_context.py::test_what_is_not_held_in_the_same_words_is_denied",
            "tests/test_context.py::test_capabilities_of_the_executor_or_of_the_start_are_held",
            "tests/test_context.py::test_a_run_keeps_what_it_holds_over_resumes_unless_it_is_said_anew",
        ),
    ),
    Row(
        "X6",
        "The record of a run is chained, can be sealed with a key, goes on over resumes, and shows edits, cuts, swaps and a wrong key",
        (
            "tests/test_sql_store.py::test_with_a_key_only_its_holder_can_write_a_sound_row",
            "trailmark/testing/promises/loading.py::LoadingContract::test_rows_sealed_with_another_key_are_corrupt",
            "tests/test_sql_store.py::test_an_edit_of_any_column_is_found",
            "tests/test_sql_store.py::test_a_reorder_is_found",
            "tests/test_sql_store.py::test_a_cut_at_the_end_is_found_against_the_anchor",
            "trailmark/testing/promises/leases.py::LeaseContract::test_a_takeover_amid_commits_leaves_one_unbroken_chain",
            "tests/laws/test_reducer_laws.py::test_what_changes_nothing_is_no_change",
            "tests/test_contracts.py::test_a_decision_that_was_changed_behind_a_checkpoint_contradicts_it",
        ),
    ),
    Row(
        "X7",
        "A step may have a transaction of the store's database for itself, given back on every way out",
        (
            "tests/test_transactions.py::test_a_nodes_sql_and_its_checkpoint_are_one_commit",
            "tests/test_transactions.py::test_what_makes_no_step_rolls_it_back",
            "tests/test_transactions.py::test_a_body_that_is_stopped_has_committed_nothing",
            "tests/test_transactions.py::test_branches_have_their_transactions_one_after_the_other",
            "tests/test_transactions.py::test_a_connection_that_was_kept_can_do_nothing_behind_its_block",
            "tests/acceptance/test_transactions_under_fire.py::test_lines_are_entered_exactly_once",
        ),
    ),
    Row(
        "X8",
        "Runs belong to tenants, and one tenant cannot read another's",
        (
            "trailmark/testing/promises/creating.py::CreationContract::test_a_run_key_is_free_in_another_flow_and_tenant",
            "trailmark/testing/promises/finding.py::FindingContract::test_runs_are_listed_by_flow_status_and_tenant",
            "tests/test_context.py::test_a_tenant_finds_no_run_of_another_whatever_it_asks",
            "tests/test_context.py::test_a_view_covers_everything_a_store_can_be_asked",
        ),
    ),
    Row(
        "X9",
        "What went on beside a run comes back to whoever asked for it",
        (
            "tests/test_walking.py::test_an_observer_that_raises_is_told_nothing_more_and_the_run_goes_on",
            "tests/test_walking.py::test_a_body_that_ignores_its_cancellation_holds_nothing_longer_than_the_grace",
            "tests/test_events.py::test_drop_oldest_drops_tokens_only_and_says_how_many_of_which_step",
            "tests/test_walking.py::test_history_says_what_every_checkpoint_did",
            "tests/test_context.py::test_what_a_node_warns_of_is_in_the_result_and_kept_with_its_step",
        ),
    ),
    Row(
        "X10",
        "Conditions, work on each item of a list, flows in flows, and their results are part of the graph",
        (
            "tests/unit/test_routing.py::test_the_way_on",
            "tests/test_maps.py::test_results_stand_in_the_order_of_the_items_whatever_ended_first",
            "tests/test_maps.py::test_maps_nest",
            "tests/test_maps.py::test_a_subflow_maps_its_input_and_output_and_keeps_the_rest_to_itself",
            "tests/test_maps.py::test_an_item_that_ends_without_its_result_is_a_failure_that_says_so",
            "tests/test_walking.py::test_end_in_a_branch_ends_the_branch_alone",
            "tests/test_letting.py::test_constants_and_functions_of_the_state_before_it_are_written_under_their_keys",
            "tests/test_maps.py::test_an_item_that_breaks_ends_the_map_and_what_has_not_begun_never_does",
            "tests/test_maps.py::test_an_item_that_ends_early_is_over_and_the_next_one_begins",
            "tests/test_maps.py::test_what_is_under_way_beside_an_item_that_breaks_is_given_up",
            "tests/test_maps.py::test_a_map_that_was_left_is_left_again_wherever_the_process_dies",
        ),
    ),
)

OPERATING: tuple[Row, ...] = (
    Row(
        "H1",
        "The life of a run is a table: what is not in it is a typed error and harms nothing",
        (
            "tests/test_cli.py::test_what_has_ended_ends_with_7",
            "trailmark/testing/promises/leases.py::LeaseContract::test_an_ended_run_is_not_acquired",
            "tests/test_lifecycle.py::test_every_status_and_every_event_stands_in_the_table",
            "tests/test_lifecycle.py::test_an_illegal_event_is_a_typed_error_that_says_what_is_possible",
            "tests/test_lifecycle.py::test_what_has_ended_stays_so_and_all_else_can_be_taken",
            "tests/test_lifecycle.py::test_every_status_but_created_can_be_reached_and_every_one_leads_to_an_end",
        ),
    ),
    Row(
        "H2",
        "Starting twice is starting once",
        (
            "trailmark/testing/promises/creating.py::CreationContract::test_of_two_creators_of_one_run_key_one_wins",
            "tests/test_lifecycle.py::test_starting_is_idempotent",
            "tests/test_lifecycle.py::test_a_submitted_run_is_created_and_driven_by_whoever_takes_it",
            "tests/test_lifecycle.py::test_a_run_taken_since_it_was_read_is_not_taken_again",
        ),
    ),
    Row(
        "H3",
        "The result has a status; a failure is raised with its cause, a cancellation is no error",
        (
            "tests/test_walking.py::test_a_failed_run_raises_with_its_result_and_its_cause",
            "tests/test_walking.py::test_cancelling_a_running_body_ends_the_run_and_waits_for_the_body",
            "tests/test_walking.py::test_what_a_body_raises_when_it_is_cancelled_is_no_failure_of_the_run",
            "tests/test_walking.py::test_a_finished_run_returns_its_stored_result_without_running_anything",
        ),
    ),
    Row(
        "H4",
        "A run with metrics ends like one without, and the numbers are final when it has",
        (
            "tests/test_metrics.py::test_what_happens_in_runs_is_counted_once_it_is_durable",
            "tests/test_walking.py::test_an_observer_that_raises_is_told_nothing_more_and_the_run_goes_on",
            "tests/test_metrics.py::test_the_numbers_of_a_run_are_final_when_its_result_is_there_however_it_ends",
        ),
    ),
    Row(
        "H5",
        "Every way to stop a run may be said twice, in any state, comes back in time, and says why",
        (
            "tests/test_walking.py::test_a_body_that_ignores_its_cancellation_holds_nothing_longer_than_the_grace",
            "tests/test_walking.py::test_cancelling_at_a_barrier_ends_the_run_and_decides_nothing",
            "tests/test_walking.py::test_closing_the_executor_suspends_what_it_drives",
            "tests/test_lifecycle.py::test_every_word_comes_back_in_every_status_and_may_be_said_twice",
            "tests/test_lifecycle.py::test_a_stopped_run_finishes_what_is_in_flight_and_begins_nothing",
            "tests/test_lifecycle.py::test_a_stop_whose_grace_is_over_cancels_what_is_in_flight",
            "tests/test_lifecycle.py::test_a_harder_word_overrides_a_softer_one",
            "tests/test_lifecycle.py::test_a_softer_word_does_not_override_a_harder_one",
            "tests/test_lifecycle.py::test_who_aborted_a_run_and_why_is_recorded",
        ),
    ),
    Row(
        "H6",
        "The status can be watched, the current one first, and waited for",
        (
            "tests/test_lifecycle.py::test_who_watches_sees_the_current_status_first_and_the_end_last",
            "tests/test_lifecycle.py::test_waiting_for_a_status_that_cannot_come_any_more_is_a_typed_error",
            "tests/test_lifecycle.py::test_who_stops_watching_decides_nothing",
        ),
    ),
    Row(
        "H7",
        "The shape of a flow as data and as pictures",
        (
            "tests/test_topology.py::test_the_shape_of_a_flow_is_plain_data",
            "tests/test_topology.py::test_fans_and_cycles_of_any_graph_are_those_networkx_finds",
            "tests/test_topology.py::test_the_shape_of_a_stored_definition_is_that_of_its_graph",
            "tests/test_drawing.py::test_mermaid_shows_every_node_edge_and_branch",
            "tests/test_drawing.py::test_dot_shows_every_node_edge_and_branch",
        ),
    ),
    Row(
        "H8",
        "Breakers, retries, rate limits, timeouts and backpressure around nodes, in order, for a flow or a node",
        (
            "tests/test_middleware.py::test_a_node_takes_the_flows_list_and_changes_it_by_name",
            "tests/test_middleware.py::test_an_inner_flow_takes_the_list_around_it_and_changes_it_by_name",
            "tests/test_middleware.py::test_a_breaker_opens_after_failures_in_a_row_refuses_and_closes_when_a_trial_succeeds",
            "tests/laws/test_limit_laws.py::test_no_stretch_of_time_sees_more_starts_than_allowed_and_nobody_waits_without_need",
            "tests/test_middleware.py::test_a_flows_retry_makes_each_failed_attempt_a_checkpoint_of_the_walk",
            "tests/test_middleware.py::test_backpressure_holds_a_node_back_while_too_many_wait_behind_it",
            "tests/test_middleware.py::test_a_timeout_counts_no_wait_before_it_and_every_wait_behind_it",
            "tests/test_middleware.py::test_the_snapshot_of_a_stack_stands_in_the_definition_in_its_order",
            "tests/test_middleware.py::test_synchronous_nodes_wait_for_places_without_holding_a_thread",
        ),
    ),
    Row(
        "H9",
        "A run's checkpoints are held against contracts, which a strict run has to pass to complete",
        (
            "tests/test_contracts.py::test_a_check_counts_every_edge_that_a_run_left_and_entered",
            "tests/test_contracts.py::test_a_check_says_what_is_wrong_with_a_history",
            "tests/test_contracts.py::test_a_strict_run_whose_checkpoints_break_a_contract_is_quarantined_and_can_be_resumed",
            "tests/laws/test_walk_laws.py::test_whatever_happens_the_checkpoints_of_a_walk_keep_every_contract",
            "tests/laws/test_walk_laws.py::test_a_history_that_was_tampered_with_breaks_a_contract",
        ),
    ),
    Row(
        "H10",
        "Counters and times as text for a scraper, or a typed error that says what to install",
        (
            "tests/test_metrics.py::test_what_happens_in_runs_is_counted_once_it_is_durable",
            "tests/test_metrics.py::test_who_waits_and_who_is_refused_is_asked_of_the_executor_when_the_metrics_are_read",
            "tests/test_metrics.py::test_metrics_that_cannot_be_had_are_a_typed_error_that_says_what_to_install",
        ),
    ),
    Row(
        "H11",
        "The journal of a run can be read from any place, and replayed against today's flow",
        (
            "tests/test_events.py::test_whoever_reconnects_with_any_id_misses_nothing_that_follows",
            "trailmark/testing/promises/loading.py::LoadingContract::test_history_is_read_from_any_seq_on",
            "tests/test_events.py::test_events_of_a_run_that_has_ended_come_from_the_log",
            "tests/test_replay.py::test_a_run_matches_the_flow_that_it_was_recorded_with",
            "tests/test_replay.py::test_what_today_s_flow_decides_otherwise_is_named_with_its_step",
            "tests/laws/test_walk_laws.py::test_a_run_replayed_with_its_own_flow_decides_nothing_otherwise",
            "tests/test_events.py::test_the_last_events_are_the_end_of_the_log_wherever_they_begin",
            "tests/test_cli.py::test_the_last_events_and_checkpoints_of_a_run_are_listed_by_their_number",
        ),
    ),
    Row(
        "H12",
        "A command line over the store: list, show, compare, decide, resume, fork, cancel, verify, tidy up, also beside live runs",
        (
            "tests/test_cli.py::test_runs_are_listed_newest_first_and_filtered",
            "tests/test_cli.py::test_a_run_is_shown_with_its_place_its_tickets_and_its_decisions",
            "tests/test_cli.py::test_steps_tell_node_branch_change_and_time",
            "tests/test_cli.py::test_the_state_of_any_checkpoint_and_what_changed_between_two",
            "tests/test_cli.py::test_a_ticket_is_listed_shown_approved_and_the_run_resumed",
            "tests/test_cli.py::test_a_rejection_takes_the_other_way",
            "tests/test_cli.py::test_a_fork_stands_where_the_original_stood_with_other_values",
            "tests/test_cli.py::test_a_cancelled_run_ends_with_5_when_it_is_asked_for",
            "tests/test_cli.py::test_damage_is_found_named_and_ends_with_10",
            "tests/test_cli_processes.py::test_a_process_that_stays_goes_on_when_another_approves",
            "tests/test_cli.py::test_a_store_is_pruned_packed_and_its_runs_are_deleted",
            "tests/test_pruning.py::test_a_run_is_cut_while_it_goes_on",
            "tests/test_cli.py::test_an_operator_edits_a_waiting_run",
        ),
    ),
    Row(
        "H13",
        "What is set is set by arguments",
        (
            "tests/test_metrics.py::test_no_behaviour_is_steered_by_environment_variables",
            "tests/test_cli.py::test_the_store_is_named_by_option_then_environment_then_default",
            "tests/test_settings.py::test_every_argument_that_is_a_value_is_a_setting_with_the_same_default",
            "tests/test_settings.py::test_settings_do_what_the_arguments_do",
            "tests/test_settings.py::test_nothing_but_the_command_line_and_the_test_kit_reads_the_environment",
        ),
    ),
)

FAULTS_OF_GRAPHS: tuple[Row, ...] = (
    Row(
        "A1",
        "Cancelling at a barrier approves",
        (
            "tests/test_walking.py::test_cancelling_at_a_barrier_ends_the_run_and_decides_nothing",
            "tests/acceptance/test_messages_between_processes.py::test_a_run_at_a_barrier_is_cancelled_from_another_process_and_nothing_is_approved",
            "tests/test_walking.py::test_cancelling_wins_over_a_run_that_parks_in_the_same_moment",
        ),
    ),
    Row(
        "A2",
        "Cancelling at a barrier without a deadline hangs",
        (
            "tests/acceptance/test_messages_between_processes.py::test_a_run_attached_at_a_barrier_is_cancelled_from_another_process",
            "tests/test_walking.py::test_cancelling_wins_over_a_run_that_parks_in_the_same_moment",
        ),
    ),
    Row(
        "A3",
        "Whoever loses the run's handle approves",
        (
            "tests/acceptance/test_messages_between_processes.py::test_a_process_killed_while_it_waits_at_a_barrier_takes_nothing_with_it",
            "tests/test_demo.py::test_ctrl_c_at_the_question_decides_nothing_and_the_person_can_answer_later",
            "tests/test_walking.py::test_a_caller_who_is_cancelled_suspends_the_run_which_then_resumes",
        ),
    ),
    Row(
        "A4",
        "Skipping counts as approving, and a default looks like a person's decision",
        (
            "trailmark/testing/promises/decisions.py::DecisionContract::test_each_action_is_kept_as_what_it_is",
            "tests/test_walking.py::test_modify_writes_and_approves_only_where_it_says_so",
            "tests/test_walking.py::test_a_deadline_is_nobodys_decision",
            "trailmark/testing/promises/judging.py::JudgingContract::test_nobody_decides_without_a_name_or_in_the_name_of_the_deadline",
        ),
    ),
    Row(
        "A5",
        "A resumed run begins from the start under another id, asks again, or runs although it had completed",
        (
            "tests/acceptance/test_killed_processes.py::test_a_process_killed_beside_a_commit",
            "tests/test_demo.py::test_a_worker_is_killed_another_resumes_without_doing_anything_again_and_a_decision_ends_it",
            "tests/test_walking.py::test_a_run_waits_for_a_decision_and_goes_on_in_another_process",
            "tests/test_walking.py::test_a_finished_run_returns_its_stored_result_without_running_anything",
        ),
    ),
    Row(
        "A6",
        "The step limit starts anew with every resume",
        ("tests/test_walking.py::test_the_limit_counts_over_the_life_of_the_run_and_is_raised_by_name",),
    ),
    Row(
        "A7",
        "A changed graph is only warned of, and much that changes it is not seen",
        (
            "tests/test_graph_hash.py::test_a_change_of_how_a_run_goes_changes_the_hash_and_is_shown",
            "tests/test_graph_hash.py::test_all_those_changes_are_different_ones",
            "tests/test_walking.py::test_a_place_that_the_new_graph_does_not_have_is_refused_even_with_force",
            "tests/test_walking.py::test_a_run_of_another_flow_is_refused",
            "tests/test_walking.py::test_a_change_ahead_is_gone_on_with_and_recorded_and_strict_refuses_it_with_what_changed",
            "tests/test_changed_graphs.py::test_a_run_is_refused_with_the_reason_where_what_is_under_way_has_changed_and_force_is_recorded",
        ),
    ),
    Row(
        "A8",
        "What is stored is not what happened: one run has several states",
        (
            "tests/laws/test_walk_laws.py::test_the_live_state_is_the_restored_one_after_every_batch_whatever_happens_first",
            "tests/laws/test_walk_laws.py::test_a_driven_run_ends_the_same_however_often_its_process_dies",
        ),
    ),
    Row(
        "A9",
        "Every record carries the whole state",
        (
            "tests/test_sql_store.py::test_the_bytes_beside_a_payload_stay_below_200_a_row",
            "tests/test_events.py::test_a_node_that_says_nothing_stores_nothing_of_it",
            "tests/test_walking.py::test_a_long_run_whose_state_stays_small_is_loaded_from_a_snapshot",
        ),
    ),
    Row(
        "A10",
        "A change is applied twice when it is read back",
        (
            "tests/laws/test_walk_laws.py::test_the_live_state_is_the_restored_one_after_every_batch_whatever_happens_first",
            "trailmark/testing/promises/loading.py::LoadingContract::test_a_snapshot_that_does_not_stand_on_its_checkpoint_is_not_used",
            "tests/acceptance/test_bad_days.py::test_a_lost_commit_and_its_repetition_may_both_hang_in_the_server_and_one_gets_in",
        ),
    ),
    Row(
        "A11",
        "A checkpoint that was not written is only logged, and the run goes on",
        (
            "tests/test_sql_store.py::test_a_full_disk_refuses_the_commit_and_keeps_the_run",
            "tests/test_events.py::test_whatever_stops_the_drive_is_raised_to_those_who_listen",
            "tests/acceptance/test_bad_days.py::test_a_disk_that_is_full_loses_nothing",
        ),
    ),
    Row(
        "A12",
        "A checkpoint names the node that ran with the state before it, so it runs again",
        (
            "tests/acceptance/test_killed_processes.py::test_a_process_killed_beside_a_commit",
            "tests/test_crash_kit.py::test_a_flow_that_keeps_everything_in_its_state_survives_every_crash",
            "tests/unit/test_fold.py::test_the_columns_of_a_row_move_the_scope_and_count_the_entry",
        ),
    ),
    Row(
        "A13",
        "A policy of checkpoints does something else than it says",
        (
            "tests/test_saving.py::test_a_crash_takes_what_the_policy_lets_it_and_nothing_more",
            "tests/test_saving.py::test_a_checkpoint_that_is_asked_for_is_made_under_every_policy",
        ),
    ),
    Row(
        "A14",
        "Nothing is written before a wait, on failure, cancellation or fallback, or at the end",
        (
            "tests/test_walking.py::test_history_says_what_every_checkpoint_did",
            "tests/test_walking.py::test_an_error_that_the_retry_does_not_name_is_not_tried_again",
            "tests/unit/test_decide.py::test_cancelling_withdraws_every_ticket_and_decides_nothing",
            "tests/test_walking.py::test_a_node_that_cancels_itself_is_tried_again_and_then_takes_its_fallback",
            "tests/unit/test_decide.py::test_the_last_step_ends_the_run",
        ),
    ),
    Row(
        "A15",
        "A run whose consumer left is written down as complete",
        ("tests/test_events.py::test_a_consumer_that_leaves_does_to_the_run_what_it_asked_for",),
    ),
    Row(
        "A16",
        "Merging is skipped where there is one writer, or no branches",
        (
            "tests/unit/test_joins.py::test_the_branches_of_a_node_merge_like_one_writer_after_the_other_in_declared_order",
            "tests/test_walking.py::test_async_and_sync_nodes_run_one_after_the_other_and_are_counted",
            "tests/unit/test_joins.py::test_a_branchs_writes_count_one_by_one",
        ),
    ),
    Row(
        "A17",
        "Reducers guess: floats only, zero as the first value, wrong types ignored, items dropped",
        (
            "tests/test_reducers.py::test_each_reducer_answers_with_the_smallest_change",
            "tests/test_reducers.py::test_a_wrong_type_is_refused_by_name",
            "tests/test_reducers.py::test_summing_ints_gives_an_int_and_summing_decimals_stays_exact",
            "tests/laws/test_reducer_laws.py::test_append_loses_nothing_and_keeps_the_order",
            "tests/laws/test_reducer_laws.py::test_deep_merge_takes_over_every_leaf_of_the_update",
            "tests/unit/test_joins.py::test_a_deletion_counts_where_it_stands",
        ),
    ),
    Row(
        "A18",
        "A conflict does not say between whom, and a branch conflicts with itself",
        (
            "tests/unit/test_joins.py::test_a_key_without_a_reducer_takes_one_branch_however_often_it_wrote",
            "tests/test_walking.py::test_two_branches_that_write_one_plain_key_merge_nothing",
        ),
    ),
    Row(
        "A19",
        "A merge that fails leaves half of itself",
        (
            "tests/test_walking.py::test_two_branches_that_write_one_plain_key_merge_nothing",
            "tests/unit/test_joins.py::test_joining_changes_nothing",
        ),
    ),
    Row(
        "A20",
        "The first failure stops nobody, waiting for all throws results away, and failures lose their branch",
        (
            "tests/test_walking.py::test_the_first_failure_cancels_the_other_branches_and_waits_for_them",
            "tests/test_walking.py::test_best_effort_goes_on_with_what_succeeded_and_shows_what_did_not",
            "tests/test_walking.py::test_collect_waits_for_all_and_raises_all",
        ),
    ),
    Row(
        "A21",
        "Branches cannot stream, wait for people or be flows, and their counts are lost",
        (
            "tests/test_events.py::test_branches_are_told_with_their_path_and_their_own_step_index",
            "tests/test_walking.py::test_a_decision_may_come_before_a_barrier_in_a_branch_is_reached_and_counts_once",
            "tests/test_flow.py::test_a_flow_may_be_a_branch_and_take_its_parents_state",
            "tests/test_events.py::test_the_end_counts_what_branches_did_as_well",
        ),
    ),
    Row(
        "A22",
        "A decision in advance holds for ever, unseen, or for a name that does not exist",
        (
            "trailmark/testing/promises/tickets.py::TicketContract::test_an_unknown_barrier_lists_the_known_ones",
            "tests/test_walking.py::test_an_early_decision_is_used_for_the_first_visit_only",
            "trailmark/testing/grant_contract.py::GrantContract::test_an_allowance_decides_the_next_tickets_and_no_more",
            "trailmark/testing/grant_contract.py::GrantContract::test_a_revoked_allowance_decides_nothing_more",
            "trailmark/testing/grant_contract.py::GrantContract::test_an_allowance_that_could_never_be_used_is_refused",
            "trailmark/testing/grant_contract.py::GrantContract::test_grants_are_listed_oldest_first_and_by_what_they_are_for",
        ),
    ),
    Row(
        "A23",
        "Deadlines are polled for and begin anew with a resume",
        (
            "tests/test_walking.py::test_a_deadline_that_passed_while_nobody_drove_the_run_holds_when_somebody_does",
            "tests/test_walking.py::test_a_deadline_is_nobodys_decision",
            "tests/unit/test_decide.py::test_a_barrier_opens_a_ticket_and_sets_its_deadline",
        ),
    ),
    Row(
        "A24",
        "Nobody knows who decided, when and why",
        (
            "trailmark/testing/promises/decisions.py::DecisionContract::test_a_decision_is_attributed_and_bound_to_what_was_shown",
            "tests/acceptance/test_messages_between_processes.py::test_who_decides_may_be_killed_and_deciding_again_is_one_decision",
            "tests/test_cli.py::test_nobodys_name_is_guessed",
        ),
    ),
    Row(
        "A25",
        "A rejection goes on by default, and edits neither approve nor reject",
        (
            "tests/unit/test_decide.py::test_where_a_rejection_leads",
            "tests/test_walking.py::test_a_rejection_takes_no_edge_that_does_not_name_it",
            "tests/test_walking.py::test_modify_writes_and_approves_only_where_it_says_so",
        ),
    ),
    Row(
        "A26",
        "Choosing one's way passes conditions by; second edges, nodes and caps are ignored without a word",
        (
            "tests/test_walking.py::test_goto_needs_an_edge_and_its_condition_unless_forced",
            "tests/test_validation.py::test_a_mistake_is_told_in_a_sentence_that_names_it",
            "tests/test_validation.py::test_a_self_loop_is_a_cycle_without_protection",
            "tests/unit/test_routing.py::test_no_way_on",
            "tests/test_walking.py::test_each_of_two_capped_edges_between_the_same_nodes_has_a_count_of_its_own",
        ),
    ),
    Row(
        "A27",
        "Exceptions never reach the fallback; there is no retry and no timeout",
        (
            "tests/unit/test_routing.py::test_which_fallback_takes_which_error",
            "tests/test_walking.py::test_a_sync_node_that_outlives_its_timeout_can_do_nothing_and_its_fallback_does_not_wait_for_it",
            "tests/test_walking.py::test_a_node_that_cancels_itself_is_tried_again_and_then_takes_its_fallback",
        ),
    ),
    Row(
        "A28",
        "Plain functions block everybody, a slow consumer blocks the run, and many early decisions lock up",
        (
            "tests/test_walking.py::test_async_and_sync_nodes_run_one_after_the_other_and_are_counted",
            "tests/test_events.py::test_by_default_a_slow_consumer_loses_nothing_and_the_run_does_not_wait",
            "trailmark/testing/promises/decisions_together.py::DecisionsTogetherContract::test_many_decisions_at_once_are_all_kept",
        ),
    ),
    Row(
        "A29",
        "Steps that fail are not closed, events have no numbers, a cancellation is told as an error, a merge before it happened",
        (
            "tests/test_events.py::test_a_fallback_is_told_as_degraded_and_the_step_as_failed",
            "tests/test_events.py::test_ids_rise_over_the_whole_life_of_a_run",
            "tests/test_events.py::test_cancelling_at_a_barrier_withdraws_the_ticket_and_closes_the_step",
            "tests/test_events.py::test_a_sibling_that_is_cancelled_closes_its_step_too",
            "tests/test_events.py::test_branches_are_told_with_their_path_and_their_own_step_index",
        ),
    ),
    Row(
        "A30",
        "Dates are put together by hand and wrong",
        (
            "tests/test_walking.py::test_a_retry_far_away_parks_the_run_and_a_later_process_makes_it",
            "tests/test_codec.py::test_the_second_half_past_two_of_a_night_is_not_the_first",
            "tests/test_codec.py::test_an_odd_offset_is_kept",
        ),
    ),
    Row(
        "A31",
        "A resumed run writes to another store",
        (
            "tests/test_walking.py::test_a_run_waits_for_a_decision_and_goes_on_in_another_process",
            "tests/acceptance/test_killed_processes.py::test_a_process_killed_beside_a_commit",
            "tests/test_cli_processes.py::test_a_run_parks_is_approved_by_another_process_and_completed_by_a_third",
        ),
    ),
    Row(
        "A32",
        "What is declared does nothing",
        (
            "tests/test_docs.py::test_every_kind_of_checkpoint_that_is_written_is_explained",
            "tests/test_docs.py::test_every_status_is_explained_or_said_to_be_reserved",
            "tests/test_graph_hash.py::test_a_change_of_how_a_run_goes_changes_the_hash_and_is_shown",
            "tests/test_options.py::test_every_option_is_given_by_a_test",
            "tests/test_options.py::test_every_option_of_the_command_line_is_typed_by_a_test",
        ),
    ),
)

FAULTS_OF_STREAMS: tuple[Row, ...] = (
    Row(
        "B1",
        "Tokens are counted anew in every step",
        (
            "tests/test_events.py::test_a_run_tells_its_steps_in_order_and_ends_with_one_terminator",
            "tests/test_events.py::test_a_snapshot_keeps_what_the_log_goes_on_from",
        ),
    ),
    Row(
        "B2",
        "A cancelled run's stream just stops",
        (
            "tests/test_events.py::test_a_run_cancelled_in_the_middle_says_so_and_ends_without_success",
            "tests/test_events.py::test_a_run_cancelled_in_its_first_body_has_begun",
            "tests/test_events.py::test_a_run_cancelled_before_it_begins_tells_nothing",
        ),
    ),
    Row(
        "B3",
        "A step that fails is begun and never completed",
        (
            "tests/test_events.py::test_a_failed_run_closes_its_step_and_masks_secrets",
            "tests/laws/test_walk_laws.py::test_the_log_of_any_run_is_a_valid_stream_wherever_it_is_reloaded",
        ),
    ),
    Row(
        "B4",
        "The end of a run cannot tell a failure, counts no tokens, loses the result, or miscounts steps",
        (
            "tests/test_events.py::test_a_run_cancelled_in_the_middle_says_so_and_ends_without_success",
            "tests/test_events.py::test_a_run_tells_its_steps_in_order_and_ends_with_one_terminator",
            "tests/test_events.py::test_the_end_counts_what_branches_did_as_well",
        ),
    ),
    Row(
        "B5",
        "A consumer that leaves is an error",
        (
            "tests/test_events.py::test_a_consumer_that_leaves_does_to_the_run_what_it_asked_for",
            "tests/test_events.py::test_a_paused_run_goes_on_when_its_consumer_leaves",
        ),
    ),
    Row(
        "B6",
        "Everything is opened before anybody looks whether the flow exists; what cannot be opened is passed over",
        (
            "tests/test_cli.py::test_a_flow_that_cannot_be_loaded_is_told_in_one_line",
            "tests/test_cli.py::test_looking_makes_no_file_and_a_store_that_is_not_there_ends_with_9",
            "tests/acceptance/test_bad_days.py::test_a_store_that_cannot_be_opened_says_why_without_the_password",
        ),
    ),
    Row(
        "B7",
        "How to stream holds for some steps only, and leaks into the next",
        (
            "tests/test_events.py::test_a_consumer_that_stops_and_goes_is_told_everything_once",
            "tests/test_events.py::test_with_pause_a_thread_waits_too_and_a_cancel_sets_it_free",
            "tests/laws/test_walk_laws.py::test_what_a_run_tells_live_is_what_its_log_tells_however_slow_the_consumer",
        ),
    ),
    Row(
        "B8",
        "The queue to a slow consumer grows without end",
        (
            "tests/test_events.py::test_with_pause_the_run_waits_for_its_consumer_and_the_queue_stays_small",
            "tests/test_events.py::test_by_default_a_slow_consumer_loses_nothing_and_the_run_does_not_wait",
            "tests/test_events.py::test_fail_tells_the_consumer_and_leaves_the_run_alone",
        ),
    ),
    Row(
        "B9",
        "What was dropped is hidden behind a success",
        (
            "tests/test_events.py::test_drop_oldest_drops_tokens_only_and_says_how_many_of_which_step",
            "tests/test_events.py::test_degrade_makes_one_token_of_those_that_wait",
            "tests/test_events.py::test_whatever_stops_the_drive_is_raised_to_those_who_listen",
        ),
    ),
    Row(
        "B10",
        "Steps in loops and branches share their number",
        (
            "tests/test_events.py::test_the_branch_that_begins_first_and_ends_last_keeps_its_index",
            "tests/laws/test_walk_laws.py::test_the_log_of_any_run_is_a_valid_stream_wherever_it_is_reloaded",
            "tests/test_events.py::test_drop_oldest_drops_tokens_only_and_says_how_many_of_which_step",
        ),
    ),
    Row(
        "B11",
        "A consumer that leaves keeps the run waiting for ever",
        (
            "tests/test_events.py::test_a_paused_run_goes_on_when_its_consumer_leaves",
            "tests/test_events.py::test_a_paused_run_can_be_cancelled",
            "tests/test_events.py::test_with_pause_a_thread_waits_too_and_a_cancel_sets_it_free",
        ),
    ),
    Row(
        "B12",
        "What a branch wrote is lost where it joins, and the record says otherwise",
        (
            "tests/unit/test_joins.py::test_a_nested_join_still_tells_the_outer_join_what_was_written",
            "tests/laws/test_walk_laws.py::test_the_live_state_is_the_restored_one_after_every_batch_whatever_happens_first",
            "tests/laws/test_reducer_laws.py::test_what_changes_nothing_is_no_change",
        ),
    ),
    Row(
        "B13",
        "Verifying sees no cut, uses a key nobody keeps, and is never done",
        (
            "tests/test_sql_store.py::test_a_cut_at_the_end_is_found_against_the_anchor",
            "tests/test_sql_store.py::test_with_a_key_only_its_holder_can_write_a_sound_row",
            "tests/acceptance/test_bad_days.py::test_a_run_whose_end_was_cut_off_is_not_resumed_as_if_nothing_were_missing",
        ),
    ),
    Row(
        "B14",
        "Where nobody said what is allowed, everything is",
        (
            "tests/test_context.py::test_what_is_not_held_in_the_same_words_is_denied",
            "tests/test_context.py::test_capabilities_of_the_executor_or_of_the_start_are_held",
        ),
    ),
    Row(
        "B15",
        "Texts are put together bytewise, what is missing becomes nothing, and numbers are compared as text",
        (
            "tests/unit/test_barriers.py::test_a_prompt_that_cannot_be_written_is_the_nodes_error",
            "tests/test_validation.py::test_a_mistake_is_told_in_a_sentence_that_names_it",
            "trailmark/testing/promises/commits.py::CommitContract::test_a_text_with_signs_that_mean_something_elsewhere_is_kept",
            "tests/test_codec.py::test_equal_scalars_of_different_types_stay_apart",
        ),
    ),
    Row(
        "B16",
        "Names promise what is not done: sleeping without suspending, transactions without rolling back",
        (
            "tests/test_walking.py::test_a_run_waits_for_a_decision_and_goes_on_in_another_process",
            "tests/test_waits.py::test_a_timer_parks_the_run_and_rings_when_its_time_has_come",
            "trailmark/testing/promises/commits.py::CommitContract::test_a_refused_run_does_not_harm_those_committed_at_the_same_time",
            "tests/test_transactions.py::test_what_makes_no_step_rolls_it_back",
            "tests/test_transactions.py::test_a_run_that_fails_for_its_last_state_has_committed_nothing",
        ),
    ),
    Row(
        "B17",
        "What went wrong beside the run is written where nobody reads",
        (
            "tests/test_walking.py::test_an_observer_that_raises_is_told_nothing_more_and_the_run_goes_on",
            "tests/test_walking.py::test_a_body_that_ignores_its_cancellation_holds_nothing_longer_than_the_grace",
        ),
    ),
    Row(
        "B18",
        "The documented kinds of events are not those there are",
        (
            "tests/test_event_catalog.py::test_the_corpus_holds_every_kind",
            "tests/test_event_catalog.py::test_the_predicates_answer_for_every_kind",
            "tests/test_event_catalog.py::test_every_kind_survives_the_way_to_json_and_back_byte_for_byte",
            "tests/test_docs.py::test_every_public_name_is_in_the_reference",
        ),
    ),
)

FAULTS_OF_HANDLES: tuple[Row, ...] = (
    Row(
        "C1",
        "A failure is hidden where metrics are asked for, and a deliberate stop is an error",
        (
            "tests/test_walking.py::test_a_failed_run_raises_with_its_result_and_its_cause",
            "tests/test_walking.py::test_cancelling_a_running_body_ends_the_run_and_waits_for_the_body",
            "tests/test_metrics.py::test_what_happens_in_runs_is_counted_once_it_is_durable",
        ),
    ),
    Row(
        "C2",
        "Starting a second time, or too early, kills whatever supervises",
        (
            "tests/test_slips.py::test_a_run_that_this_process_drives_says_where_to_wait_for_it",
            "tests/acceptance/test_rival_processes.py::test_of_two_processes_that_resume_one_run_exactly_one_wins",
            "tests/test_lifecycle.py::test_starting_is_idempotent",
            "tests/test_lifecycle.py::test_a_run_taken_since_it_was_read_is_not_taken_again",
        ),
    ),
    Row(
        "C3",
        "Some ways to stop are errors once it is over",
        (
            "tests/test_walking.py::test_cancelling_at_a_barrier_ends_the_run_and_decides_nothing",
            "tests/test_slips.py::test_a_closed_executor_starts_and_resumes_nothing",
            "tests/test_lifecycle.py::test_every_word_comes_back_in_every_status_and_may_be_said_twice",
        ),
    ),
    Row(
        "C4",
        "Stopping softly has no bound",
        (
            "tests/test_walking.py::test_a_body_that_ignores_its_cancellation_holds_nothing_longer_than_the_grace",
            "tests/test_lifecycle.py::test_a_stop_whose_grace_is_over_cancels_what_is_in_flight",
            "tests/test_lifecycle.py::test_a_body_that_takes_too_long_is_run_again_by_the_next_one",
        ),
    ),
    Row(
        "C5",
        "Every error is turned into text",
        (
            "tests/test_walking.py::test_a_failed_run_raises_with_its_result_and_its_cause",
            "tests/test_walking.py::test_an_update_that_cannot_be_used_fails_the_node_with_key_and_path",
            "tests/test_docs.py::test_every_error_says_when_it_is_raised_and_who_must_act",
        ),
    ),
    Row(
        "C6",
        "Anybody may send the run events from inside it",
        (
            "tests/test_waits.py::test_what_nobody_can_wait_for_is_refused_where_it_is_sent",
            "trailmark/testing/promises/tickets.py::TicketContract::test_an_unknown_barrier_lists_the_known_ones",
            "tests/test_slips.py::test_a_decision_with_a_field_of_a_wrong_kind_cannot_be_made",
        ),
    ),
    Row(
        "C7",
        "Waiting is polling, and waiting for numbers a guess",
        (
            "trailmark/testing/promises/watches.py::WatchContract::test_a_watch_does_not_sleep_through_what_came_before_it_waited",
            "trailmark/testing/promises/watches.py::WatchContract::test_a_watch_wakes_for_what_another_process_writes",
            "trailmark/testing/promises/watches.py::WatchContract::test_a_watch_of_steps_wakes_for_each_step_that_another_process_commits",
            "tests/test_walking.py::test_a_deadline_is_nobodys_decision",
            "tests/test_metrics.py::test_what_happens_in_runs_is_counted_once_it_is_durable",
        ),
        missing="SQLite tells no other process of a change, so there one thread looks for one every 10 ms, while somebody waits.",
    ),
    Row(
        "C8",
        "A limiter holds a thread, and to fail is to skip",
        (
            "tests/test_middleware.py::test_synchronous_nodes_wait_for_places_without_holding_a_thread",
            "tests/test_middleware.py::test_a_full_bulkhead_refuses_and_the_fallback_takes_it",
            "tests/test_middleware.py::test_a_wait_for_a_turn_is_no_failure_and_no_checkpoint",
        ),
    ),
    Row(
        "C9",
        "The journal is not on disk when it says so, is counted on before it is written, and loses its index",
        (
            "tests/test_sql_store.py::test_a_commit_is_durable_when_it_is_acknowledged",
            "tests/test_sql_store.py::test_synchronous_is_what_was_asked_for",
            "trailmark/testing/promises/commits.py::CommitContract::test_commits_of_one_run_that_are_sent_together_keep_their_order",
            "trailmark/testing/promises/commits.py::CommitContract::test_a_commit_that_leaves_a_hole_is_refused",
            "tests/test_sql_store.py::test_an_edit_of_any_column_is_found",
            "tests/test_sql_store.py::test_with_a_key_only_its_holder_can_write_a_sound_row",
            "tests/acceptance/test_power_cut.py::test_when_a_step_is_acknowledged_not_one_page_of_it_waits_for_the_disk",
        ),
    ),
    Row(
        "C10",
        "Nothing can be resumed, and a graph's name changes with the interpreter",
        (
            "tests/acceptance/test_killed_processes.py::test_a_process_killed_beside_a_commit",
            "tests/test_graph_hash.py::test_a_known_flow_keeps_its_hash",
        ),
    ),
    Row(
        "C11",
        "The settings of a middleware are not shown as documented, or are refused",
        (
            "tests/test_middleware.py::test_the_snapshot_of_a_stack_stands_in_the_definition_in_its_order",
            "tests/test_middleware.py::test_middleware_that_cannot_work_is_a_problem_of_the_flow",
        ),
    ),
    Row(
        "C12",
        "Environment variables steer what arguments should",
        ("tests/test_metrics.py::test_no_behaviour_is_steered_by_environment_variables",),
    ),
)

GROUPS: dict[str, tuple[Row, ...]] = {
    "The engine": ENGINE,
    "Keeping runs": KEEPING,
    "Events and streams": TELLING,
    "What a step has around it": AROUND,
    "Handles and operations": OPERATING,
    "Faults: graphs and checkpoints": FAULTS_OF_GRAPHS,
    "Faults: streams": FAULTS_OF_STREAMS,
    "Faults: handles and operations": FAULTS_OF_HANDLES,
}
