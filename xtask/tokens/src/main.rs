//! `tokens TOKENIZER.json` turns each line of its input into a line of token ids, as a sentence
//! encoder takes them. `cargo xtask` runs it for the demonstration that has one.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufWriter, Write, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use clap::Parser;
use tokenizers::{Tokenizer, TruncationParams};

/// The most tokens of a sentence, special ones included.
const MOST_TOKENS: usize = 128;

/// Turn sentences into token ids.
///
/// Reads one sentence a line and writes for each a line of ids, separated by spaces: special tokens
/// such as [CLS] and [SEP] included, without padding, and cut off at 128 tokens.
#[derive(Debug, Parser)]
#[command(name = "tokens")]
struct Flags {
    /// The tokenizer, as the file tokenizer.json beside a model describes it.
    tokenizer: PathBuf,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    let path = flags.tokenizer.display();
    let json = fs::read(&flags.tokenizer).with_context(|| format!("cannot read {path}"))?;
    let tokenizer = tokenizer(&json).with_context(|| format!("{path} is no tokenizer"))?;
    write_ids(&tokenizer, stdin().lock(), BufWriter::new(stdout().lock()))
}

/// The tokenizer of a file, whose own padding and limit of length are replaced.
fn tokenizer(json: &[u8]) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(Error::from_boxed)?;
    let truncation = TruncationParams { max_length: MOST_TOKENS, ..TruncationParams::default() };
    tokenizer.with_padding(None).with_truncation(Some(truncation)).map_err(Error::from_boxed)?;
    Ok(tokenizer)
}

/// Writes a line of ids for each line of the input.
fn write_ids(tokenizer: &Tokenizer, sentences: impl BufRead, mut output: impl Write) -> Result<()> {
    for (i, sentence) in sentences.lines().enumerate() {
        let line = i + 1;
        let sentence = sentence.with_context(|| format!("cannot read line {line}"))?;
        let encoding = tokenizer.encode_fast(sentence, true).map_err(Error::from_boxed);
        let encoding = encoding.with_context(|| format!("no tokens for line {line}"))?;
        let ids: Vec<String> = encoding.get_ids().iter().map(ToString::to_string).collect();
        writeln!(output, "{}", ids.join(" ")).context("cannot write the ids")?;
    }
    output.flush().context("cannot write the ids")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer as BERT has it, of eight tokens, that would pad to 4 and cut off at 4.
    const TINY: &str = r###"{
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 4}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3,
                "rain": 4, "##ing": 5, "it": 6, ".": 7}}
    }"###;

    fn ids(sentences: &str) -> String {
        let mut output = Vec::new();
        write_ids(&tokenizer(TINY.as_bytes()).unwrap(), sentences.as_bytes(), &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn each_line_becomes_a_line_of_ids_without_padding() {
        assert_eq!(
            ids("It rained.\n\nRaining, RAIN it\u{301} raining.\r\n"),
            "2 6 1 7 3\n2 3\n2 4 5 1 4 6 4 5 7 3\n"
        );
        assert_eq!(ids(""), "");
    }

    #[test]
    fn a_long_sentence_is_cut_off_before_its_last_special_token() {
        let cut = ids(&"rain ".repeat(1000));
        let expected = format!("2{} 3\n", " 4".repeat(126));
        assert_eq!(cut, expected);
    }

    #[test]
    fn an_error_says_where_it_was() {
        assert!(tokenizer(b"{}").is_err());
        let error =
            write_ids(&tokenizer(TINY.as_bytes()).unwrap(), &b"it\n\xff\n"[..], Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read line 2");
    }
}
