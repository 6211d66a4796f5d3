//! Questions to the person.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, Result};

/// Asks, and reads the answer: yes is `y` or `yes`; the end of input is no.
pub(crate) fn confirm(question: &str) -> Result<bool> {
    Ok(is_yes(&line(question)?))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// A line of the person's input, without its end.
pub(crate) fn line(question: &str) -> Result<String> {
    let mut out = io::stdout().lock();
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("the answer")?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (answer, yes) in
            [("y\n", true), ("YES", true), ("", false), ("n", false), ("yeah", false)]
        {
            assert_eq!(is_yes(answer), yes);
        }
    }
}
