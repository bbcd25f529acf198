// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which tests the C module of the base kernel does not pass, and why.

use rustix::io::Errno;

/// A test that the C module does not pass.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The test.
    pub test: &'static str,
    /// The defect, by its id in the project's list.
    pub defect: &'static str,
    /// It is never run against the C module, which may crash or hang the machine.
    pub left_out: bool,
}

const fn fails(test: &'static str, defect: &'static str) -> Known {
    Known {
        test,
        defect,
        left_out: false,
    }
}

const fn left_out(test: &'static str, defect: &'static str) -> Known {
    Known {
        test,
        defect,
        left_out: true,
    }
}

/// All of them, as seen with Linux 6.12.117.
const KNOWN: &[Known] = &[
    left_out("d01_lz4_across_cached_edges", "D1"),
    left_out("d03_key_lengths", "D3"),
    left_out("d07_reopen_refused_close_first", "D7"),
    left_out("d07_reopen_refused_copen_first", "D7"),
    left_out("d47_lz4_kill_reader", "D47"),
    left_out("d47_lz4_answer_without_data", "D47"),
    left_out("d47_lz4_dead_cache", "D47"),
    left_out("d58_lz4_blob_on_full_disk", "D58"),
    left_out("d58_lz4_blob_without_name", "D58"),
    left_out("load_two_threads", "D1"),
    left_out("load_edge_triggered_threads", "D1"),
    left_out("failover_killed_30_times", "D47"),
    fails("d02_colliding_long_keys", "D2"),
    fails("d04_cull_outside", "D4"),
    fails("d05_close_with_delivered_read", "D5"),
    fails("d06_restore_with_live_file", "D6"),
    fails("d09_missing_attributes", "D9"),
    fails("d10_close_unread", "D10"),
    fails("d12_kill_mount_with_open_unanswered", "D12"),
    fails("d15_file_is_close_on_exec", "D15"),
    fails("d16_no_descriptor_left", "D16"),
    fails("d16_edge_after_failed_delivery", "D16"),
    fails("d12_mount_ends", "D17"),
    fails("d17_timeout_command", "D17"),
    fails("d17_delivered_read_ends", "D17"),
    fails("d17_queued_read_ends", "D17"),
    fails("d17_reopening_ends", "D17"),
    fails("d17_answered_in_time", "D17"),
    fails("d17_expiry_is_told", "D17"),
    fails("d17_close_before_deadline", "D17"),
    fails("d18_many_expire", "D17"),
    fails("d18_many_unanswered_opens", "D18"),
    fails("d19_copen_after_close", "D19"),
    fails("d20_reopen_with_another_size", "D20"),
    fails("d21_seek_does_not_move", "D21"),
    fails("d22_write_and_seek_at_once", "D22"),
    fails("d23_write_beyond_size", "D23"),
    fails("d23_read_beyond_told_size", "D23"),
    fails("d24_half_a_page_beyond_told_size", "D24"),
    fails("d26_mode_after_failed_bind", "D26"),
    fails("d27_copen_sizes", "D27"),
    fails("d28_surplus_text", "D28"),
    fails("d31_small_buffer_starves_nobody", "D31"),
    fails("d08_poller_wakes_on_refused_reopen", "D8"),
    fails("d08_poller_wakes_on_close_in_reopen", "D8"),
    fails("d08_poller_wakes_on_close_with_read", "D5"),
    fails("d19_reopen_closed_before_copen", "D19"),
    // EFAULT ends the OPEN as EMFILE does.
    fails("message_bad_buffer", "D16"),
    fails("message_poll_agrees_with_read", "D5"),
    // The half that was not written counts as data, and is read as zeros.
    fails("read_half_a_block_is_no_data", "D24"),
    // The old file holds the object, and the object its cookie.
    fails("close_umount_with_old_file_open", "D10"),
    fails("failover_restore_then_close", "D6"),
    fails("failover_restore_twice", "D6"),
    left_out("d11_volume_that_cannot_be_buried", "D11"),
    fails("d50_bind_without_capability", "D50"),
    fails("d13_cull_around_graveyard", "D13"),
    fails("cull_racing_mounts", "D51"),
    fails("d13_cull_mount_point", "D13"),
    fails("d14_cull_immutable", "D14"),
    fails("d18_suspend", "D18"),
    fails("d25_mount_while_frozen", "D25"),
    fails("d25_cull_while_frozen", "D25"),
    fails("d28_cull_arguments", "D28"),
    fails("d28_limits_after_bind", "D28"),
    fails("d36_completion_by_32_bits", "D36"),
    fails("d37_failed_commit", "D37"),
    fails("d38_named_while_mounted", "D38"),
    fails("d46_directories_when_needed", "D46"),
    fails("limits_space_given_back", "D48"),
    fails("disk_full", "D48"),
    fails("d54_not_at_all", "D54"),
    fails("d56_fill_cut_in_a_page", "D56"),
    fails("d56_cut_fills_beside_one_another", "D56"),
    fails("d62_unwritten_is_no_data", "D62"),
    fails("d62_taken_from_the_file", "D62"),
    fails("d62_many_extents", "D62"),
    fails("d62_small_blocks", "D62"),
    fails("d62_store_read_all_the_time", "D62"),
    fails("d59_commit_tried_again", "D59"),
    fails("d61_directories_that_ignore_case", "D61"),
    fails("d61_disk_that_ignores_case", "D61"),
    fails("d58_blob_on_full_disk", "D58"),
    fails("d58_fd_without_file", "D58"),
    fails("d58_blob_in_use", "D58"),
    fails("d58_blob_in_the_way", "D58"),
    fails("security_context_without_module", "D49"),
    fails("smack_unknown_context", "D49"),
    // The store's file has no name while the image is mounted.
    fails("mockd_in_a_mount_namespace", "D38"),
    left_out("mockd_dies_at_every_point_lz4", "D1"),
    left_out("mockd_wrong_sizes_of_data", "D1"),
    left_out("mockd_chaos", "D1"),
    left_out("mockd_answers_errors", "D7"),
    left_out("mockd_closes_early", "D7"),
    left_out("mockd_wrong_sizes_of_objects", "D7"),
    left_out("mockd_without_descriptors", "D16"),
    left_out("mockd_restores_and_writes_nonsense", "D6"),
    left_out("cve_2024_39510_restore_and_close_beside_read", "D6"),
    left_out("cve_2024_40899_restore_beside_copen", "D6"),
    left_out("cve_2024_41074_errors_for_any_id_in_reopens", "D7"),
    left_out("cve_2024_41075_answers_of_any_kind_for_any_id", "D7"),
    fails("cve_2024_49870_cull_beside_mount", "D51"),
    // A READ whose file is closed after its delivery waits for ever.
    fails("cve_2024_41051_umount_with_reopen_pending", "D5"),
    fails("cve_2024_42250_poll_beside_ending_requests", "D5"),
    // EFAULT ends the OPEN as EMFILE does.
    fails("cve_2024_40913_close_beside_failing_read", "D16"),
];

/// What is known about a test.
#[must_use]
pub fn find(test: &str) -> Option<Known> {
    KNOWN.iter().copied().find(|known| known.test == test)
}

/// Commands that the C module does not have.
const EXTENSIONS: &[&str] = &["timeout", "fetch", "batch", "fill", "identity"];

/// Whether a test has ended since the kernel does not know one of them.
#[must_use]
pub fn lacks_command(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref() {
        Some(cachefiles_proto::Error::Command { command, errno }) => {
            let word = command.split(' ').next();
            *errno == Errno::OPNOTSUPP && word.is_some_and(|word| EXTENSIONS.contains(&word))
        }
        _ => false,
    })
}

/// The names in the list that no test has.
pub fn stale<'a>(tests: &'a [&'a str]) -> impl Iterator<Item = &'static str> + 'a {
    KNOWN
        .iter()
        .map(|known| known.test)
        .filter(|name| !tests.contains(name))
}
