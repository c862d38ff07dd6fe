//! Whatever it is told, the controller stays within its bounds and does not panic.

use proptest::prelude::*;

use super::*;
use crate::pace::{Decision, Memory, Settings};

/// Numbers as a broken clock or counter might give them, and usual ones.
fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..2000_u64, 1 => Just(0), 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn any_time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => (0..20_000_u64).prop_map(Duration::from_millis),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
        1 => any_count().prop_map(Duration::from_nanos),
    ]
}

fn any_float() -> impl Strategy<Value = f64> {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, f64::MAX];
    prop_oneof![4 => 0.01..64.0, 1 => prop::sample::select(odd.to_vec())]
}

fn any_counts() -> impl Strategy<Value = Counts> {
    let counts = (0_usize..200, any_count(), any_count(), any_count(), any_count());
    let times = (any_time(), any_time(), any_time(), any_time(), any_time());
    (counts, times, any_float(), any::<[bool; 2]>(), 0_usize..1000).prop_map(
        |((workers, entered, done, tries, pushback), times, squares, known, depth)| Counts {
            workers,
            entered,
            done,
            tries,
            pushback,
            busy: times.0,
            squares,
            cpu: known[0].then_some(times.1),
            waiting_for_core: known[1].then_some(times.2),
            starved: times.3,
            blocked: times.4,
            depth,
            is_ending: depth == 0,
            starting: usize::from(depth > 900),
            start: known[0].then_some(times.4),
            memory: known[1].then_some(entered),
        },
    )
}

fn any_bounds() -> impl Strategy<Value = Bounds> {
    prop_oneof![
        (1_usize..10).prop_map(Bounds::fixed),
        (1_usize..600).prop_map(|most| Bounds::io().at_most(most)),
        (1_usize..64, 1_usize..4).prop_map(|(cores, sharing)| Bounds::cpu(cores, sharing)),
        (1_usize..64, 1_usize..4).prop_map(|(cores, sharing)| Bounds::command(cores, sharing)),
    ]
}

/// Whether `decisions` keep to what may be decided.
fn are_lawful(
    decisions: &[Decision],
    workers: &[usize],
    bounds: &[Bounds],
) -> Result<(), TestCaseError> {
    for decision in decisions {
        let bounds = bounds[decision.stage];
        prop_assert!(!bounds.is_fixed, "{decision:?}");
        prop_assert!((1..=bounds.most).contains(&decision.to), "{decision:?} of {bounds:?}");
        prop_assert_eq!(decision.from, workers[decision.stage]);
        prop_assert!(decision.from != decision.to);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nonsense_leads_to_no_panic_and_to_no_number_outside_the_bounds(
        bounds in prop::collection::vec(any_bounds(), 1..5),
        cores in any_float(),
        looks in prop::collection::vec(
            (any_time(), prop::collection::vec(any_counts(), 5), any_time(), any_float(),
                prop::option::of((any_count(), any_count())), any::<bool>()),
            1..40,
        ),
    ) {
        let mut controller = Controller::new(Settings::new(cores, bounds.clone()));
        for (at, mut stages, cpu, cores, memory, agrees) in looks {
            stages.truncate(bounds.len());
            let workers = controller.workers();
            if agrees {
                // Mostly nobody else decides, and it may go on.
                stages.iter_mut().zip(&workers).for_each(|(it, &workers)| it.workers = workers);
            }
            let memory = memory.map(|(used, budget)| Memory { used, budget });
            let was: Vec<usize> = stages.iter().map(|it| it.workers).collect();
            let snapshot = Snapshot { at, stages, cpu: Some(cpu), memory, cores: Some(cores) };
            let look = controller.look(&snapshot);
            let was: Vec<usize> =
                was.iter().zip(&workers).map(|(&is, &was)| if is == 0 { was } else { is }).collect();
            are_lawful(&look.decisions, &was, &bounds)?;
            prop_assert!(look.next >= Duration::from_millis(10) && look.next < RARELY);
        }
    }

    /// A stage that waits, on cores that others leave alone, whatever its times are.
    #[test]
    fn a_constant_stage_gets_its_workers_and_then_is_left_alone(
        service in 0.002_f64..0.06,
        share in 0.0_f64..0.9,
        room in 1_usize..80,
        most in 1_usize..300,
        cores in 0.5_f64..16.0,
        seed in any::<u64>(),
    ) {
        let bounds = vec![Bounds::fixed(1), Bounds::io().at_most(most), Bounds::fixed(1)];
        let settings = Settings::new(cores, bounds.clone()).random(seed | 1);
        let mut controller = Controller::new(settings);
        let mut steady = Steady { service, share, room, cores, ..Steady::default() };
        let (mut late_moves, mut workers) = (0, controller.workers());
        // Workers and what they do in the last of the time: at its end it may look at others.
        let (mut late, mut rate, mut time) = (0.0, 0.0, 0.0);
        while steady.at < 60.0 {
            let look = controller.look(&steady.snapshot(workers[1]));
            are_lawful(&look.decisions, &workers, &bounds)?;
            if steady.at > 20.0 && !look.decisions.is_empty() {
                late_moves += 1;
            }
            workers = controller.workers();
            let seconds = look.next.as_secs_f64();
            if steady.at > 30.0 {
                late += workers[1] as f64 * seconds;
                rate += steady.rate(workers[1]) * seconds;
                time += seconds;
            }
            steady.run(seconds, workers[1]);
        }
        // Of use are as many as the server takes, the cores allow, and there may be.
        let by_cores = cores / share.max(1e-9);
        let useful = (room as f64).min(by_cores).min(most as f64);
        let reached = rate / time * service / useful;
        prop_assert!(reached > 0.85, "{reached} with {workers:?} of {useful}");
        // Where nearly all cores are busy it is not known that it is the server that is full.
        let is_clear = useful * share < 0.85 * cores;
        let fits = late / time <= 2.0 * useful + 4.0;
        prop_assert!(fits || !is_clear, "{workers:?} for {useful}");
        prop_assert!(late_moves <= 12, "{late_moves} moves in 40 s");
    }

    #[test]
    fn nothing_grows_where_the_memory_is_used_up(
        service in 0.002_f64..0.4,
        used in 1_u64..1 << 40,
        seed in any::<u64>(),
    ) {
        let bounds = vec![Bounds::fixed(1), Bounds::io(), Bounds::fixed(1)];
        let mut controller = Controller::new(Settings::new(4.0, bounds).random(seed | 1));
        let mut steady = Steady { service, room: 512, cores: 4.0, ..Steady::default() };
        while steady.at < 10.0 {
            let workers = controller.workers()[1];
            let memory = Some(Memory { used, budget: used });
            let look = controller.look(&Snapshot { memory, ..steady.snapshot(workers) });
            // What a probe has taken away may come back.
            let workers = controller.workers()[1];
            prop_assert!(workers <= Bounds::io().seed, "{workers}");
            steady.run(look.next.as_secs_f64(), workers);
        }
    }

    #[test]
    fn no_more_compute_than_the_budget_has_cores_and_a_slack_for(
        cpu in 0.002_f64..0.1,
        budget in 0.3_f64..4.0,
        seed in any::<u64>(),
    ) {
        let bounds = vec![Bounds::fixed(1), Bounds::cpu(16, 1), Bounds::fixed(1)];
        let mut controller = Controller::new(Settings::new(budget, bounds).random(seed | 1));
        // The machine has more than the budget.
        let mut steady =
            Steady { service: cpu, share: 1.0, room: 512, cores: 16.0, ..Steady::default() };
        while steady.at < 30.0 {
            let look = controller.look(&steady.snapshot(controller.workers()[1]));
            steady.run(look.next.as_secs_f64(), controller.workers()[1]);
        }
        let workers = controller.workers()[1] as f64;
        prop_assert!(workers <= 1.3 * budget + 2.0, "{workers} for {budget}");
    }
}

/// Runs a stage that waits and takes any number, as it tells what its workers are like; gives
/// their number at the end.
fn workers_after(seconds: f64, tell: impl Fn(f64, &mut Snapshot)) -> usize {
    let bounds = vec![Bounds::fixed(1), Bounds::serve(2), Bounds::fixed(1)];
    let mut controller = Controller::new(Settings::new(2.0, bounds));
    let mut steady = Steady { service: 0.02, room: 512, cores: 2.0, ..Steady::default() };
    while steady.at < seconds {
        let mut snapshot = steady.snapshot(controller.workers()[1]);
        tell(steady.at, &mut snapshot);
        let look = controller.look(&snapshot);
        steady.run(look.next.as_secs_f64(), controller.workers()[1]);
    }
    controller.workers()[1]
}

#[test]
fn what_is_slow_to_start_is_added_in_a_run_that_is_older_than_a_start() {
    let slow = |_: f64, now: &mut Snapshot| now.stages[1].start = Some(Duration::from_secs(3));
    assert_eq!(workers_after(2.5, slow), 2);
    assert!(workers_after(6.0, slow) > 16);
}

#[test]
fn a_stage_that_runs_out_of_items_keeps_the_workers_it_had() {
    let bounds = vec![Bounds::fixed(1), Bounds::io(), Bounds::cpu(2, 1), Bounds::fixed(1)];
    let mut controller = Controller::new(Settings::new(2.0, bounds));
    let mut waits = Steady { service: 0.02, room: 512, cores: 2.0, ..Steady::default() };
    let mut computes = Steady { service: 0.004, share: 1.0, room: 512, ..Steady::default() };
    computes.cores = 2.0;
    let (mut end, mut found) = (None, 0);
    while computes.at < 40.0 {
        let workers = controller.workers();
        let mut snapshot = waits.snapshot(workers[1]);
        snapshot.at = Duration::from_secs_f64(computes.at);
        let mut others = computes.snapshot(workers[2]).stages;
        snapshot.stages.truncate(2);
        snapshot.stages.extend(others.drain(1..));
        if computes.at >= 6.0 {
            let done = *end.get_or_insert_with(|| {
                found = workers[1];
                snapshot.stages[1].done
            });
            snapshot.stages[0].done = done;
            let stage = &mut snapshot.stages[1];
            (stage.entered, stage.tries, stage.is_ending) = (done, done, true);
        }
        let seconds = controller.look(&snapshot).next.as_secs_f64();
        computes.run(seconds, controller.workers()[2]);
        if end.is_none() {
            waits.run(seconds, controller.workers()[1]);
        }
    }
    assert!(found > 1, "{found}");
    assert_eq!(controller.workers()[1], found);
}

#[test]
fn a_run_whose_first_workers_were_slow_to_start_is_young_when_they_have() {
    let slow = |at: f64, now: &mut Snapshot| {
        now.stages[1].starting = usize::from(at < 4.0);
        now.stages[1].start = Some(Duration::from_secs(4));
    };
    assert_eq!(workers_after(3.9, slow), 2);
    assert_eq!(workers_after(5.0, slow), 32, "two steps in a second, of four times as many");
}

#[test]
fn nothing_is_decided_while_workers_start() {
    let starting = |at: f64, now: &mut Snapshot| now.stages[1].starting = usize::from(at < 2.0);
    assert_eq!(workers_after(1.9, starting), 2);
    assert!(workers_after(6.0, starting) > 16);
}

#[test]
fn no_more_are_added_than_memory_has_room_for_by_what_one_of_them_takes() {
    let workers = workers_after(6.0, |_, now| {
        let used = 1000 * now.stages[1].workers as u64;
        now.stages[1].memory = Some(1000);
        now.memory = Some(Memory { used, budget: 7500 });
    });
    assert!((5..=7).contains(&workers), "{workers}");
}

const RARELY: Duration = Duration::from_secs(3);

/// A stage with constant times behind a source that is never empty.
#[derive(Default)]
struct Steady {
    at: f64,
    service: f64,
    /// The part of the service time that is CPU time.
    share: f64,
    /// How many its server takes at once.
    room: usize,
    cores: f64,
    done: f64,
    busy: f64,
    queued: f64,
}

impl Steady {
    fn rate(&self, workers: usize) -> f64 {
        let by_cores = self.cores / (self.share * self.service).max(1e-12);
        (workers.min(self.room) as f64 / self.service).min(by_cores)
    }

    fn run(&mut self, seconds: f64, workers: usize) {
        let done = self.rate(workers) * seconds;
        self.at += seconds;
        self.done += done;
        // Who has no core waits for one; who has no slot waits in service.
        self.busy += workers as f64 * seconds;
        let at_server = (workers.min(self.room) as f64).min(workers as f64);
        let is_short_of_cores = self.rate(workers) * self.service < 0.999 * at_server;
        if is_short_of_cores {
            self.queued += (workers as f64 * seconds - done * self.service).max(0.0);
        }
    }

    fn snapshot(&self, workers: usize) -> Snapshot {
        let time = Duration::from_secs_f64;
        let done = self.done as u64;
        let stage = Counts {
            workers,
            entered: done + workers as u64,
            done,
            tries: done + workers as u64,
            busy: time(self.busy),
            // A tenth of spread.
            squares: 1.01 * self.done * (self.busy / self.done.max(1e-9)).powi(2),
            cpu: Some(time(self.done * self.service * self.share)),
            waiting_for_core: Some(time(self.queued)),
            ..Counts::default()
        };
        let end = |done| Counts {
            workers: 1,
            entered: done,
            done,
            tries: done,
            cpu: Some(Duration::ZERO),
            waiting_for_core: Some(Duration::ZERO),
            ..Counts::default()
        };
        let stages = vec![end(done + workers as u64), stage, end(done)];
        Snapshot { at: time(self.at), stages, ..Snapshot::default() }
    }
}
