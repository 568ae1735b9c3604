//! The code in a model's reply.

use super::Language;
use super::parse::errors;

/// Code found in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// The code.
    pub text: String,
    /// Its language: what the fence says, what the caller says, or the one that it parses best as.
    pub language: Language,
}

/// The code of a reply: all fenced blocks in one language, or what stands between `<code>` tags, or the lines of a
/// bare reply from the first to the last that look like code. `None` for prose, refusals and empty replies.
pub fn extract(reply: &str, language: Option<Language>) -> Option<Extracted> {
    let reply = reply.strip_prefix('\u{FEFF}').unwrap_or(reply);
    let blocks = fenced(reply);
    if !blocks.is_empty() {
        return joined(&blocks, language);
    }
    let text = tagged(reply).unwrap_or_else(|| reply.to_owned());
    let bare = bare(&text, language)?;
    let language = language.unwrap_or_else(|| guess(&bare));
    Some(Extracted { text: bare, language })
}

struct Block<'a> {
    /// The word after the fence.
    tag: &'a str,
    lines: Vec<&'a str>,
}

fn fenced(reply: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut open: Option<&str> = None;
    for line in reply.lines() {
        let start = line.trim_start();
        let fence = ["```", "~~~"].into_iter().find(|fence| start.starts_with(fence));
        match (open, fence) {
            (None, Some(fence)) => {
                let tag = start.trim_start_matches(['`', '~']).trim();
                blocks.push(Block {
                    tag: tag.split_whitespace().next().unwrap_or_default(),
                    lines: Vec::new(),
                });
                open = Some(fence);
            }
            (Some(opened), Some(fence)) if opened == fence => open = None,
            (Some(_), _) => {
                if let Some(block) = blocks.last_mut() {
                    block.lines.push(line);
                }
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The blocks of the wanted language, or of that of the first block that has one; other blocks are output or shell.
/// Blocks without a language count only where none has it.
fn joined(blocks: &[Block<'_>], wanted: Option<Language>) -> Option<Extracted> {
    let tagged = |block: &Block<'_>| block.tag.parse::<Language>().ok();
    let language = wanted.or_else(|| blocks.iter().find_map(tagged));
    let named = language.is_some() && blocks.iter().any(|block| tagged(block) == language);
    let fits = |block: &&Block<'_>| {
        language.is_none() || tagged(block) == language || block.tag.is_empty() && !named
    };
    let text = |block: &Block<'_>| dedented(&block.lines);
    let parts: Vec<String> =
        blocks.iter().filter(fits).map(text).filter(|text| !text.trim().is_empty()).collect();
    if parts.is_empty() {
        return None;
    }
    let text = parts.join("\n");
    let language = language.unwrap_or_else(|| guess(&text));
    Some(Extracted { text, language })
}

fn dedented(lines: &[&str]) -> String {
    let indent = |line: &&&str| line.len() - line.trim_start().len();
    let least =
        lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indent(&line)).min().unwrap_or(0);
    let cut = |line: &&str| line.get(least..).unwrap_or_default().to_owned();
    lines.iter().map(cut).collect::<Vec<_>>().join("\n") + "\n"
}

fn tagged(reply: &str) -> Option<String> {
    let (_, rest) = reply.split_once("<code>")?;
    let inside = rest.split("</code>").next().unwrap_or(rest);
    Some(dedented(&inside.lines().collect::<Vec<_>>()))
}

/// The whole text if it parses, or its lines without prose before and after.
fn bare(text: &str, language: Option<Language>) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let whole = dedented(&lines);
    let parses = |text: &str| {
        let all = [Language::Python, Language::C];
        let tried = all.into_iter().filter(|one| language.is_none_or(|wanted| wanted == *one));
        tried.into_iter().any(|language| errors(text, language) == Some(0))
    };
    let first = lines.iter().position(|line| looks_like_code(line))?;
    if parses(&whole) {
        return Some(whole);
    }
    let from_first = dedented(&lines[first..]);
    if first > 0 && parses(&from_first) {
        return Some(from_first);
    }
    // Prose after the code: at most one cut, before the first line at the margin that follows a blank one.
    let cut = (first + 1..lines.len()).find(|&i| {
        lines[i - 1].trim().is_empty() && is_prose(lines[i]) && parses(&dedented(&lines[first..i]))
    });
    Some(match cut {
        Some(end) => dedented(&lines[first..end]),
        None if lines.iter().filter(|line| is_prose(line)).count() * 2 > lines.len() => return None,
        None => whole,
    })
}

fn is_prose(line: &str) -> bool {
    let line = line.trim();
    let words = line.split_whitespace().count();
    words >= 3
        && line.starts_with(char::is_alphabetic)
        && !looks_like_code(line)
        && !line.contains([';', '=', '{', '}', '('])
        || line.ends_with(['.', ':', '!']) && words >= 3 && !looks_like_code(line) && !line.ends_with("):")
}

fn looks_like_code(line: &str) -> bool {
    let line = line.trim_start();
    let starts = [
        "def ",
        "class ",
        "import ",
        "from ",
        "#include",
        "#define",
        "int ",
        "void ",
        "char ",
        "static ",
        "@",
        "async def ",
        "const ",
        "unsigned ",
        "size_t ",
        "struct ",
        "typedef ",
        "bool ",
        "long ",
        "double ",
        "float ",
        "FILE ",
        "extern ",
        "inline ",
        "uint",
        "ssize_t ",
        "/*",
        "//",
        "#!",
        "# ",
        "\"\"\"",
    ];
    let code_from = |line: &str| line.contains(" import ") || !line.starts_with("from ");
    (starts.iter().any(|start| line.starts_with(start)) && code_from(line) && !line.ends_with('.'))
        || line.ends_with([';', '{', '}'])
        || line.contains('(') && line.ends_with(')') && !line.contains(". ")
        || line.contains(" = ") && !line.ends_with('.')
        || ["if ", "for ", "while ", "with ", "try:"].iter().any(|start| line.starts_with(start))
            && line.ends_with([':', '{'])
        || line.starts_with("return ") && !line.ends_with('.')
}

/// The language that fits better.
fn guess(text: &str) -> Language {
    let score = |language| errors(text, language).unwrap_or(usize::MAX);
    let (python, c) = (score(Language::Python), score(Language::C));
    let marks_of_c = text.contains("#include") || text.matches(";\n").count() * 2 > text.lines().count();
    if c < python || c == python && marks_of_c { Language::C } else { Language::Python }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(reply: &str) -> Option<(String, Language)> {
        extract(reply, None).map(|code| (code.text, code.language))
    }

    #[test]
    fn fences_of_markdown() {
        let reply = "Sure! Here it is:\n\n```python\nimport os\nos.getcwd()\n```\n\nRun it:\n```bash\npython x.py\n```\n";
        assert_eq!(code(reply), Some(("import os\nos.getcwd()\n".into(), Language::Python)));
        assert_eq!(code("```c\nint x;\n```"), Some(("int x;\n".into(), Language::C)));
        assert_eq!(code("```\nint x = 1;\n").unwrap().1, Language::C);
        assert_eq!(code("```\n\n```"), None);
    }

    #[test]
    fn bare_code_between_prose() {
        let reply = "Here is the function:\n\ndef f(x):\n    return x\n\nIt returns its argument.";
        assert_eq!(code(reply), Some(("def f(x):\n    return x\n\n".into(), Language::Python)));
        let tagged = "Done. <code>\n  def f(x):\n      return x\n</code>";
        assert_eq!(code(tagged).unwrap().0.trim(), "def f(x):\n    return x");
    }

    #[test]
    fn prose_and_refusals_are_no_code() {
        for reply in [
            "",
            "  \n",
            "I'm sorry, but I can't help with that.",
            "The capital of France is Paris.\nIt is old.",
        ] {
            assert_eq!(code(reply), None, "{reply}");
        }
    }

    proptest! {
        #[test]
        fn no_reply_panics(reply in "(\\PC|\n|`{3}|<code>){0,80}") {
            let _ = extract(&reply, None);
        }
    }
}
