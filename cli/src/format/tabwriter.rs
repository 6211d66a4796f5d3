//! Columns as Go's text/tabwriter makes them: a cell ends with a tab; cells of adjacent lines make
//! a column, at least as wide as asked; what follows the last tab of a line is in no column.

/// Aligns the cells of a text.
pub(crate) fn align(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> =
        lines.iter().map(|cells| vec![0; cells.len().saturating_sub(1)]).collect();
    for line in 0..lines.len() {
        for column in 0..widths[line].len() {
            if widths[line][column] > 0 {
                continue;
            }
            let block = line..(line..lines.len())
                .find(|at| widths[*at].len() <= column)
                .unwrap_or(lines.len());
            let width = block
                .clone()
                .map(|at| lines[at][column].chars().count() + padding)
                .max()
                .unwrap_or_default()
                .max(min_width);
            for at in block {
                widths[at][column] = width;
            }
        }
    }
    let mut aligned = String::with_capacity(text.len() * 2);
    for (number, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if number > 0 {
            aligned.push('\n');
        }
        for (column, cell) in cells.iter().enumerate() {
            aligned.push_str(cell);
            if let Some(width) = widths.get(column) {
                let blanks = width.saturating_sub(cell.chars().count());
                aligned.extend(std::iter::repeat_n(' ', blanks));
            }
        }
    }
    aligned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_go() {
        let text = "REPOSITORY\tTAG\tIMAGE ID\nbusybox\tlatest\t0826b1a22be6\n";
        assert_eq!(
            align(text, 10, 3),
            "REPOSITORY   TAG       IMAGE ID\nbusybox      latest    0826b1a22be6\n"
        );
        // A line without cells ends the columns.
        assert_eq!(align("aaaa\tb\n\na\tb\n", 0, 1), "aaaa b\n\na b\n");
        assert_eq!(align("\u{e9}\tb", 4, 1), "\u{e9}   b");
    }
}
