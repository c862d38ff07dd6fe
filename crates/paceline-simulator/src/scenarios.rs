//! The pipelines that the pace is held against.
//!
//! Named ones, one for each way in which a pipeline can be hard; random ones
//! to tune by; and as many from a seed that was fixed before any tuning and
//! are looked at once.

use paceline::pace::Bounds;

use crate::{
    random::Random,
    world::{Change, Plan, Server, StagePlan},
};

/// The seed of the pipelines that nothing was tuned on.
pub const HOLD_OUT: u64 = 20_261_123;
/// The seed of as many more, for what was changed after the first were looked at.
pub const HOLD_OUT_2: u64 = 20_270_731;
/// And as many more, for what was changed after those.
pub const HOLD_OUT_3: u64 = 20_281_019;
/// The seeds of those to tune by.
pub const TUNING: [u64; 2] = [1000, 5000];
/// How many pipelines a seed gives.
pub const RANDOM: usize = 40;

const MS: f64 = 1e-3;

fn stage(cpu: f64, wait: f64, bounds: Bounds) -> StagePlan {
    StagePlan {
        cpu: cpu * MS,
        wait: wait * MS,
        spread: 0.5,
        server: Server::Free,
        queue: 16,
        gain: 1.0,
        bounds,
        tail: 1.0,
    }
}

fn io(cpu: f64, wait: f64) -> StagePlan {
    // 128: as far as the search goes.
    stage(cpu, wait, Bounds::io().at_most(128))
}

fn plan(name: &str, cores: usize, stages: Vec<StagePlan>) -> Plan {
    Plan {
        name: format!("{name}, {cores} cores"),
        cores: cores as f64,
        cores_told: cores as f64,
        source: (5e-6, 0.0),
        stages,
        changes: Vec::new(),
        sees_queue: true,
        items: None,
    }
}

/// The named pipelines, each with the time at which it changes, if it does.
#[must_use]
pub fn named() -> Vec<Plan> {
    [2, 8].into_iter().flat_map(on).collect()
}

fn on(cores: usize) -> Vec<Plan> {
    let cpu = |ms: f64, sharing: usize| stage(ms, 0.0, Bounds::cpu(cores, sharing));
    let child = |cpu, wait| stage(cpu, wait, Bounds::command(cores, 1));
    let many = cores as f64;
    let served = |server| StagePlan { server, ..io(0.1, 40.0) };
    let mut s1 =
        plan("S1 wait, compute, wait", cores, vec![io(0.2, 40.0), cpu(4.0, 1), io(0.2, 20.0)]);
    s1.name.push_str("");
    let s2 = plan("S2 unbalanced computing", cores, vec![cpu(6.0, 3), cpu(2.0, 3), cpu(0.7, 3)]);
    let s3 =
        plan("S3 nothing but waiting", cores, vec![stage(0.02, 100.0, Bounds::io().at_most(128))]);
    let s4 = plan("S4 server with 12 slots", cores, vec![served(Server::Slots(12)), cpu(0.5, 1)]);
    let knee = Server::Knee { contention: 0.02, crosstalk: 0.0008 };
    let s5 = plan("S5 server that crowding slows", cores, vec![served(knee), cpu(0.2, 1)]);
    let serial = StagePlan { bounds: Bounds::fixed(1), ..stage(0.2, 4.0, Bounds::fixed(1)) };
    let s6 = plan("S6 serial last stage", cores, vec![io(0.2, 60.0), cpu(1.0, 1), serial]);
    let heavy = StagePlan { spread: 2.0, ..io(0.2, 30.0) };
    let s7 = plan("S7 heavy tails", cores, vec![heavy, StagePlan { spread: 2.0, ..cpu(3.0, 1) }]);
    let s8 = Plan {
        changes: vec![(20.0, Change::Waits(1, 3.0))],
        ..plan("S8 server three times slower at 20 s", cores, vec![io(0.2, 30.0), cpu(3.0, 1)])
    };
    let s9 = Plan {
        changes: vec![(20.0, Change::Slots(1, 6))],
        ..plan(
            "S9 server loses 10 of 16 slots at 20 s",
            cores,
            vec![served(Server::Slots(16)), cpu(0.5, 1)],
        )
    };
    let small = |stage: StagePlan| StagePlan { queue: 4, ..stage };
    let mixed = stage(1.5, 6.0, Bounds::blocking());
    let s10 = plan(
        "S10 five mixed stages, queues of 4",
        cores,
        vec![
            small(io(0.2, 20.0)),
            small(cpu(1.5, 3)),
            small(mixed.clone()),
            small(cpu(0.8, 3)),
            small(io(0.1, 30.0)),
        ],
    );
    let s11 = plan(
        "S11 server refuses above 10",
        cores,
        vec![served(Server::Rejecting(10)), cpu(0.5, 1)],
    );
    let s12 = plan(
        "S12 filter and fan-out",
        cores,
        vec![
            StagePlan { gain: 0.1, ..io(0.05, 5.0) },
            StagePlan { gain: 50.0, ..cpu(4.0, 2) },
            cpu(0.4, 2),
        ],
    );
    let s13 = Plan {
        changes: vec![
            (8.0, Change::Work(2, 1.4)),
            (16.0, Change::Work(2, 2.0)),
            (20.0, Change::Work(2, 2.6)),
        ],
        ..plan(
            "S13 dear and cheap items, drifting",
            cores,
            vec![
                StagePlan { tail: 12.0, ..io(0.2, 20.0) },
                StagePlan { tail: 12.0, ..cpu(2.0, 1) },
            ],
        )
    };
    let rate = (many / 4.2e-3).min(1e6);
    let s14 = Plan {
        items: Some((2.0 * rate) as u64),
        ..plan("S14 two seconds of work", cores, vec![io(0.2, 50.0), cpu(4.0, 1)])
    };
    let s15 = Plan {
        changes: vec![(15.0, Change::Neighbours(many))],
        ..plan("S15 neighbours take cores at 15 s", cores, vec![io(0.2, 30.0), cpu(4.0, 1)])
    };
    let s16 = Plan {
        cores: 0.75 * many,
        ..plan("S16 a quota of three quarters, unseen", cores, vec![io(0.2, 30.0), cpu(4.0, 1)])
    };
    let s17 = plan("S17 tiny items", cores, vec![cpu(0.005, 2), cpu(0.010, 2)]);
    let s18 = Plan {
        sees_queue: false,
        ..plan("S18 children that compute and wait", cores, vec![child(6.0, 6.0)])
    };
    let s19 = Plan {
        sees_queue: false,
        ..plan("S19 children that compute", cores, vec![child(10.0, 0.3)])
    };
    let s20 = Plan {
        source: (5e-6, 4.0 * MS),
        ..plan("S20 slow source", cores, vec![io(0.2, 50.0), cpu(2.0, 1)])
    };
    let s21 = plan(
        "S21 token bucket of 150 a second",
        cores,
        vec![served(Server::Bucket(150.0)), cpu(0.5, 1)],
    );
    let deep = |stage: StagePlan| StagePlan { queue: 32, spread: 0.6, ..stage };
    let s22 = Plan {
        changes: vec![(2.0, Change::Waits(1, 3.0))],
        ..plan(
            "S22 server three times slower at 2 s",
            cores,
            vec![deep(io(0.05, 30.0)), deep(cpu(3.0, 1))],
        )
    };
    vec![
        s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, s16, s17, s18, s19, s20,
        s21, s22,
    ]
}

/// The random pipelines of a seed: two to five stages that wait, compute, or both.
#[must_use]
pub fn random(seed: u64) -> Vec<Plan> {
    let mut random = Random::new(seed);
    (0..RANDOM).map(|number| any(&mut random, seed, number)).collect()
}

fn any(random: &mut Random, seed: u64, number: usize) -> Plan {
    let cores = random.one_of(&[2, 4, 8]);
    let queue = random.one_of(&[4, 16, 64]);
    let count = random.one_of(&[2, 3, 4, 5]);
    let kinds: Vec<f64> = (0..count).map(|_| random.part()).collect();
    let sharing = kinds.iter().filter(|kind| **kind >= 0.4 && **kind < 0.75).count();
    let stages = kinds.iter().map(|&kind| {
        let spread = 0.3 + 1.2 * random.part();
        let mut stage = if kind < 0.4 {
            io(random.between(0.05, 0.5), random.between(5.0, 100.0))
        } else if kind < 0.75 {
            stage(random.between(0.5, 20.0), 0.0, Bounds::cpu(cores, sharing))
        } else {
            stage(random.between(0.5, 10.0), random.between(2.0, 50.0), Bounds::blocking())
        };
        if kind < 0.4 && random.part() < 0.3 {
            stage.server = Server::Slots((4.0 + 37.0 * random.part()) as usize);
        }
        StagePlan { spread, queue, ..stage }
    });
    let stages = stages.collect();
    plan(&format!("{seed}/{number:02}, {count} stages, queues of {queue}"), cores, stages)
}
