//! Rate limiters and breakers. They outlive the revisions that name them, so that a change of weights gives no caller a new burst and
//! closes no open breaker.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use headgate_core::breaker::Breaker;
use headgate_core::limits::{BreakerSpec, RateSpec};
use headgate_core::rate::RateLimiter;
use headgate_core::snapshot::Quota;
use headgate_core::spec::{EndpointSpec, VersionSpec};
use serde_json::{Value, json};

use crate::metrics::rendering::family;

/// The rate limiters and breakers that a snapshot or a request holds.
#[derive(Default)]
pub struct LimitRegistry {
    limiters: Mutex<HashMap<String, (RateSpec, Weak<RateLimiter>)>>,
    /// By endpoint, version and digest.
    breakers: Mutex<HashMap<(String, String, String), Weak<Breaker>>>,
}

impl LimitRegistry {
    /// The quota of an endpoint's callers: the one in use, unless the rate has changed.
    pub fn quota(&self, spec: &EndpointSpec) -> Option<Quota> {
        let rate = spec.limits.rate.as_ref()?;
        let by = rate.by.as_deref().map(Into::into);
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        let present = limiters.get(&spec.name).filter(|(known, _)| known == rate);
        if let Some(limiter) = present.and_then(|(_, limiter)| limiter.upgrade()) {
            return Some(Quota { by, limiter });
        }
        let limiter = Arc::new(RateLimiter::new(rate, RandomState::new().build_hasher().finish()));
        limiters.retain(|_, (_, limiter)| limiter.strong_count() > 0);
        limiters.insert(spec.name.clone(), (rate.clone(), Arc::downgrade(&limiter)));
        Some(Quota { by, limiter })
    }

    /// The breaker of a version: the one in use, unless its rule or the version has changed.
    pub fn breaker(&self, spec: &EndpointSpec, version: &VersionSpec) -> Option<Arc<Breaker>> {
        let rule: &BreakerSpec = spec.limits.breaker.as_ref()?;
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (spec.name.clone(), version.name.clone(), version.digest.clone());
        let present = breakers.get(&key).and_then(Weak::upgrade).filter(|breaker| breaker.rule() == rule);
        if let Some(breaker) = present {
            return Some(breaker);
        }
        let breaker = Arc::new(Breaker::new(rule.clone()));
        breakers.retain(|_, breaker| breaker.strong_count() > 0);
        breakers.insert(key, Arc::downgrade(&breaker));
        Some(breaker)
    }

    /// The rate limiters, by endpoint.
    pub fn limiters(&self) -> Vec<(String, Arc<RateLimiter>)> {
        let limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        let live =
            limiters.iter().filter_map(|(name, (_, limiter))| Some((name.clone(), limiter.upgrade()?)));
        sorted(live)
    }

    /// The breakers, by endpoint and version.
    pub fn breakers(&self) -> Vec<((String, String), Arc<Breaker>)> {
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let live = breakers.iter().filter_map(|((endpoint, version, _), breaker)| {
            Some(((endpoint.clone(), version.clone()), breaker.upgrade()?))
        });
        sorted(live)
    }
}

/// The metrics of rate limiters and breakers.
#[rustfmt::skip]
pub fn families(registry: &LimitRegistry) -> [Value; 4] {
    let (limiters, breakers) = (registry.limiters(), registry.breakers());
    let limiter = |name: &str, help: &str, read: fn(&RateLimiter) -> u64| {
        family(name, help, "counter", limiters.iter().map(|(endpoint, one)| json!([{"endpoint": endpoint}, read(one)])))
    };
    let breaker = |name: &str, help: &str, kind: &str, read: fn(&Breaker) -> u64| {
        let samples = breakers.iter().map(|((endpoint, version), one)| {
            json!([{"endpoint": endpoint, "version": version}, read(one)])
        });
        family(name, help, kind, samples)
    };
    [
        limiter("headgate_requests_rate_limited_total", "Requests that were refused because their caller exceeds its rate (limits.rate).", RateLimiter::refused),
        limiter("headgate_rate_crowded_total", "Requests whose caller had to share a bucket, because there were too many callers.", RateLimiter::crowded),
        breaker("headgate_breaker_open", "1 while the breaker of the version is open (limits.breaker).", "gauge", |b| u64::from(!b.is_closed())),
        breaker("headgate_breaker_trips_total", "How often the breaker of the version has opened.", "counter", Breaker::trips),
    ]
}

fn sorted<K: Ord, V>(live: impl Iterator<Item = (K, V)>) -> Vec<(K, V)> {
    let mut live: Vec<_> = live.collect();
    live.sort_by(|(a, _), (b, _)| a.cmp(b));
    live
}
