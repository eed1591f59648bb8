//! What iperf3 says of a transfer, and whether it was one: a report counts only when no end complains, the transfer
//! lasted as long as it was asked to, and every stream carried something.

use serde_json::Value;

use crate::tool::Done;

/// The received rate in Gbit/s of a transfer that was to last so many seconds.
pub(crate) fn received(report: &str, seconds: u16) -> Done<f64> {
    received_bytes(report, seconds).map(|(bytes, took)| bytes * 8.0 / took / 1e9)
}

/// The bytes received, and the seconds that they took.
pub(crate) fn received_bytes(report: &str, seconds: u16) -> Done<(f64, f64)> {
    let json: Value = serde_json::from_str(report).map_err(|error| format!("iperf3: {error}: {report}"))?;
    if let Some(error) = json["error"].as_str() {
        return Err(format!("iperf3: {error}"));
    }
    let end = &json["end"];
    let sum = &end["sum_received"];
    let (Some(bytes), Some(took)) = (sum["bytes"].as_f64(), sum["seconds"].as_f64()) else {
        return Err("iperf3 reports no sum".to_owned());
    };
    if took < f64::from(seconds) * 0.95 {
        return Err(format!("iperf3: ended after {took:.1} of {seconds} s"));
    }
    let streams = end["streams"].as_array().map_or(&[][..], Vec::as_slice);
    // A stream of datagrams is shown by its sender alone.
    let still = |stream: &&Value| stream["receiver"]["bytes"].as_f64() == Some(0.0);
    if bytes <= 0.0 || streams.iter().any(|stream| still(&stream)) {
        return Err("iperf3: a stream carried nothing".to_owned());
    }
    Ok((bytes, took))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(bytes: u64, seconds: f64, streams: &[u64]) -> String {
        let streams: Vec<Value> =
            streams.iter().map(|bytes| serde_json::json!({"receiver": {"bytes": bytes}})).collect();
        serde_json::json!({"end": {
            "streams": streams, "sum_received": {"bytes": bytes, "seconds": seconds}
        }})
        .to_string()
    }

    #[test]
    fn a_whole_transfer_has_a_rate() {
        let rate = received(&report(250_000_000, 2.0, &[125_000_000, 125_000_000]), 2).unwrap();
        assert!((rate - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_ended_early_or_stood_still_does_not_count() {
        let early = received(&report(1000, 1.2, &[1000]), 2).unwrap_err();
        assert!(early.contains("after 1.2 of 2 s"), "{early}");
        assert!(received(&report(1000, 2.0, &[1000, 0]), 2).unwrap_err().contains("nothing"));
        assert!(received(&report(0, 2.0, &[]), 2).is_err());
        let gone = r#"{"end": {}, "error": "control socket has closed unexpectedly"}"#;
        assert_eq!(received(gone, 2).unwrap_err(), "iperf3: control socket has closed unexpectedly");
        assert!(received("", 2).is_err());
    }
}
