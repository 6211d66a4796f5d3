//! Images as their callers see them: two managers, archives, a registry.
//!
//! Its own main, because the worker that unpacks is this program again. Needs root.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod archives;
mod changes;
mod fixture;
mod hostile;
mod registry;
mod remote;
mod transfers;
mod whims;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Mutex,
};

type Test = (&'static str, fn());

macro_rules! tests {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        const TESTS: &[Test] = &[$($((
            concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn(),
        )),*),*];
    };
}

tests! {
    archives: an_archive_is_loaded_and_saved_as_it_was,
        the_id_is_that_of_the_configuration,
        all_forms_of_layers_and_archives_are_loaded,
        several_images_share_layers,
        umoci_and_skopeo_read_what_is_saved;
    changes: a_container_is_committed,
        a_root_file_system_is_imported,
        references_are_moved_and_removed,
        lists_are_filtered,
        what_nobody_uses_is_pruned,
        what_a_killed_manager_left_is_collected,
        what_did_not_end_is_pruned_and_what_is_at_work_is_not,
        a_held_image_keeps_its_layers,
        damage_is_found_and_repaired,
        what_images_take_is_counted_once;
    hostile: archives_are_refused_and_leave_nothing,
        a_refusal_does_not_wait_for_the_client,
        a_client_that_goes_away_leaves_nothing;
    remote: a_search_asks_the_catalogue,
        credentials_are_checked_where_they_are_for,
        a_mirror_that_serves_something_else_is_left,
        a_wrong_part_of_a_layer_is_no_hindrance,
        a_root_file_system_is_fetched_from_a_url;
    transfers: what_is_pushed_is_pulled_as_it_was,
        content_that_was_lost_is_pulled_again,
        skopeo_reads_what_is_pushed_and_the_reverse,
        a_second_pull_moves_nothing_and_a_shared_layer_is_not_moved,
        a_pull_that_is_given_up_goes_on_where_it_was,
        two_pulls_of_one_image_share_the_work,
        a_damaged_layer_makes_no_image,
        names_that_are_not_there_are_told_in_dockers_words,
        all_tags_are_pushed_and_pulled;
    whims: whims_of_a_registry_do_no_harm;
}

fn main() -> ExitCode {
    hull_manager_archive::worker::run_if_asked();
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted: Vec<&Test> = TESTS
        .iter()
        .filter(|(name, _)| {
            filters.is_empty() || filters.iter().any(|part| name.contains(part.as_str()))
        })
        .collect();
    let failed = Mutex::new(Vec::new());
    let next = Mutex::new(wanted.iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((name, test)) = next.lock().unwrap().next() else { return };
                    let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    if !passed {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("\n{} passed, {} failed {failed:?}", wanted.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
