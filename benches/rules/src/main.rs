//! What the pure rules of core cost, a line each: the median and the slowest hundredth of many calls.
#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use lime_core::Id;
use lime_core::agents::{InstructionLayer, LayerScope, LayerSource, ResolvedInstructions};
use lime_core::runs::{AgentMode, ProviderId};
use sha2::{Digest, Sha256};

const CLAUDE: ProviderId = ProviderId::from_static("claude");
/// How many layers a run is told.
const LAYERS: i64 = 50;
/// How much text that is.
const BYTES: usize = 200_000;
/// How many calls are timed, after as many that are not.
const CALLS: usize = 2_000;

fn main() {
    let kept = layers();
    let bare: Vec<_> =
        kept.iter().cloned().map(|layer| InstructionLayer { content_sha256: None, ..layer }).collect();
    let resolved = resolve(&kept);
    assert_eq!(resolve(&bare), resolved, "a kept hash changes nothing");
    let other = resolve(&kept[..kept.len() - 1]);
    println!("{LAYERS} layers with {BYTES} bytes in all");
    report("resolve, the layers' hashes kept by the store", || resolve(&kept));
    report("resolve, each layer hashed", || resolve(&bare));
    report("SHA-256 of as much text, alone", || Sha256::digest(&resolved.text));
    report("diff of two of them", || resolved.diff(&other));
}

fn resolve(layers: &[InstructionLayer]) -> ResolvedInstructions {
    ResolvedInstructions::resolve(layers, &CLAUDE, AgentMode::Implement)
        .expect("fifty layers of four kilobytes are within the limits")
}

/// Layers of all scopes in no order, with hashes as a store keeps them.
fn layers() -> Vec<InstructionLayer> {
    let scopes = LayerScope::ALL.iter().copied().cycle();
    let layers = (1..=LAYERS).zip(scopes).map(|(n, scope)| {
        let text: String =
            ('a'..='z').cycle().skip(usize::try_from(n).unwrap_or_default()).take(71).collect();
        let content = format!("{text}\n").repeat(BYTES / 72 / 50 + 1);
        let content = content[..BYTES / 50].to_owned();
        let hash = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let priority = i32::try_from(n * 37 % 50).unwrap_or_default();
        let layer = InstructionLayer::new(scope, LayerSource::Custom(Id::new(n)), content);
        InstructionLayer { priority, content_sha256: Some(hash), ..layer }
    });
    layers.collect()
}

fn report<T>(name: &str, mut call: impl FnMut() -> T) {
    for _ in 0..CALLS {
        black_box(call());
    }
    let mut times: Vec<Duration> = (0..CALLS)
        .map(|_| {
            let begun = Instant::now();
            black_box(call());
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (median, slow) = (micros(times[CALLS / 2]), micros(times[CALLS * 99 / 100]));
    println!("{name:<50} p50 {median:>8.1} us   p99 {slow:>8.1} us");
}
