//! One call for each of several names: those that worked are printed, the others told, and the
//! exit code is 1 if there was one.

use std::future::Future;

use anyhow::Result;

use crate::{failure::is_unreachable, report, terminal::output::print};

/// Calls in turn, and prints what each gives as a line; nothing for an empty one.
pub(crate) async fn each<F, O>(names: &[String], mut call: F) -> Result<u8>
where
    F: FnMut(String) -> O,
    O: Future<Output = Result<String>>,
{
    let mut code = 0;
    for name in names {
        match call(name.clone()).await {
            Ok(line) if line.is_empty() => {}
            Ok(line) => print(&format!("{line}\n"))?,
            // The others would not be answered either.
            Err(error) if is_unreachable(&error) => return Err(error),
            Err(error) => {
                report::error(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}
