//! Extracts text from rustdoc's HTML. There is no parser, because rustdoc writes each of the few
//! things needed here in only one way.

/// The text between the first `start` and the `end` that follows it.
pub(super) fn between<'a>(html: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = html.split_once(start)?;
    rest.split_once(end).map(|(inner, _)| inner)
}

/// A signature on one line, without tags and entities, spaced as if the line were long enough.
/// (Where rustdoc breaks long lines changes with its version.)
pub(super) fn text(html: &str) -> String {
    let mut plain = String::new();
    let mut parts = html.split('<');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (tag, after) = part.split_once('>').unwrap_or((part, ""));
        // Links and colours are inside words; attributes and `where` are blocks of their own.
        if ["div", "/div", "br"].contains(&tag.split(' ').next().unwrap_or_default()) {
            plain.push(' ');
        }
        plain.push_str(after);
    }
    // `&amp;` comes last, because the `&` it becomes does not start an entity.
    for (entity, meant) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")]
    {
        plain = plain.replace(entity, meant);
    }
    // The mark of a type that implements a notable trait.
    let plain = plain.replace('ⓘ', " ");
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace("( ", "(").replace(", )", ")").trim_end_matches([',', ';']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_signature_is_one_line() {
        let html = "pub fn <a href=\"#method.new\" class=\"fn\">new</a>(\n    x: &amp;[<a>f32</a>],\n    \
                    out: &amp;mut <a>[C]</a>,\n) -&gt; <a class=\"enum\">Result</a>&lt;<a>()</a>, <a>E</a>&gt;";
        assert_eq!(text(html), "pub fn new(x: &[f32], out: &mut [C]) -> Result<(), E>");
    }

    #[test]
    fn attributes_and_bounds_stand_apart() {
        let html = "<div class=\"code-attribute\">#[non_exhaustive]</div>pub fn f&lt;C&gt;()<div class=\"where\">where\n    \
                    C: <a>Code</a>,</div>";
        assert_eq!(text(html), "#[non_exhaustive] pub fn f<C>() where C: Code");
    }

    #[test]
    fn words_stay_whole_and_tuples_too() {
        assert_eq!(text("quantize_<wbr>slice: (<a>f32</a>,)"), "quantize_slice: (f32,)");
        assert_eq!(text("a&nbsp;&amp;lt; b"), "a &lt; b");
    }

    #[test]
    fn what_is_between_ends_at_the_first_end() {
        assert_eq!(between("<a><b>1</b><b>2</b>", "<b>", "</b>"), Some("1"));
        assert_eq!(between("<a>", "<b>", "</b>"), None);
        assert_eq!(between("<b>1", "<b>", "</b>"), None);
    }
}
