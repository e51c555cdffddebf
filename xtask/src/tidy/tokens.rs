//! The tokens of a source that the other rules need: without comments, literals and tests.

/// A word or a sign, and its line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// Every token of `source` outside comments, literals and items that exist only for tests.
pub(super) fn of(source: &str) -> Vec<Token> {
    without_tests(lex(source))
}

/// All tokens except comments and literals. `::` is one token.
fn lex(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, kept) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment(rest), false)
        } else if let Some(length) = literal(rest) {
            (length, false)
        } else if is_word(first) {
            (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        let (text, after) = rest.split_at(length);
        if kept {
            tokens.push(Token { text: text.to_owned(), line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a block comment, which may contain others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of the string, character or lifetime at the start of `text`.
fn literal(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r')).filter(|&length| length <= 2)?;
    let (letters, body) = text.split_at(prefix);
    let hashes = body.find(|c| c != '#').unwrap_or(body.len());
    if letters.ends_with('r') && body[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let found =
            body[hashes + 1..].find(&end).map_or(text.len(), |at| prefix + hashes + 1 + at + end.len());
        return Some(found);
    }
    if body.starts_with('"') {
        return Some(prefix + quoted(body, '"'));
    }
    if let Some(after) = body.strip_prefix('\'') {
        let lifetime = after.starts_with(is_word) && after.chars().nth(1).is_none_or(|c| c != '\'');
        return Some(prefix + if lifetime { 1 } else { quoted(body, '\'') });
    }
    None
}

/// The length of a literal between two `quote`s, with escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Leaves out every item after a `#[cfg(test)]`, also if `test` is one of several conditions.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let attribute = attribute(&tokens[at..]);
        if is_for_tests(&tokens[at..at + attribute]) {
            let inner = tokens.get(at + 1).is_some_and(|token| token.text == "!");
            at = if inner { tokens.len() } else { at + attribute + item(&tokens[at + attribute..]) };
        } else {
            kept.extend_from_slice(&tokens[at..at + attribute.max(1)]);
            at += attribute.max(1);
        }
    }
    kept
}

/// The length of the attribute at the start of `tokens`; 0 if there is none.
fn attribute(tokens: &[Token]) -> usize {
    let text = |at: usize| tokens.get(at).map(|token| token.text.as_str());
    let open = if text(1) == Some("!") { 2 } else { 1 };
    if text(0) == Some("#") && text(open) == Some("[") { open + group(&tokens[open..]) } else { 0 }
}

fn is_for_tests(attribute: &[Token]) -> bool {
    let has = |word: &str| attribute.iter().any(|token| token.text == word);
    has("cfg") && (has("test") || has("doctest")) && !has("not")
}

/// The length of the bracketed group at the start of `tokens`.
fn group(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The length of the item at the start of `tokens`, up to its block or semicolon.
fn item(tokens: &[Token]) -> usize {
    let mut at = 0;
    while attribute(&tokens[at..]) > 0 {
        at += attribute(&tokens[at..]);
    }
    let words = tokens[at..].iter().map(|token| token.text.as_str());
    let keyword = words.clone().find(|word| {
        matches!(
            *word,
            "use"
                | "static"
                | "type"
                | "fn"
                | "mod"
                | "struct"
                | "enum"
                | "impl"
                | "trait"
                | "macro_rules"
                | ";"
        )
    });
    let to_semicolon = matches!(keyword, Some("use" | "static" | "type"));
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "{" if !to_semicolon => return at + group(&tokens[at..]),
            "(" | "[" | "{" => at += group(&tokens[at..]),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        of(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_tokens() {
        let source = "a // b\n/* c /* d */ e */ f \"g\\\" h\" 'i' '\\'' b\"j\" r#\"k \" l\"# <'m> n::o";
        assert_eq!(words(source), ["a", "f", "<", "m", ">", "n", "::", "o"]);
        assert_eq!(of("a\n\"\n\"\nb").iter().map(|token| token.line).collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn items_for_tests_are_no_tokens() {
        assert_eq!(words("#[cfg(test)] mod a { fn b() {} } c"), ["c"]);
        assert_eq!(words("#[cfg(test)] use a::{b}; c"), ["c"]);
        assert_eq!(words("#[cfg(test)] mod a; c"), ["c"]);
        assert_eq!(words("#[cfg(all(test, unix))] #[x] fn a(b: [u8; 2]) {} c"), ["c"]);
        assert_eq!(
            words("#[cfg(not(test))] a"),
            ["#", "[", "cfg", "(", "not", "(", "test", ")", ")", "]", "a"]
        );
    }
}
