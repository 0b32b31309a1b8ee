//! Which cores the server runs on, and what each of them does.

use core_affinity::CoreId;

use super::StartError;

/// With at least this many cores the pipeline has one for itself.
const CORES_FOR_A_LONE_PIPELINE: usize = 4;
/// What `auto` takes at most: more fronts gain only for loads that are nearly all reads.
const AUTO_CORES_MAX: usize = 16;
/// What may be asked for at all.
pub const CORES_MAX: usize = 256;

/// `ringkeeper.cores`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum CoresChoice {
    /// As many as the process may use, up to 16, left to the scheduler: they are not ours alone.
    #[default]
    Auto,
    /// So many threads, left to the scheduler.
    Unpinned(usize),
    /// The first so many of those the process may use, pinned.
    Count(usize),
    /// These, pinned.
    List(Vec<usize>),
}

/// One thread of the data path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorePlan {
    /// The processor to run on; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    pub pipeline: bool,
    pub front: bool,
}

/// All of them; the pipeline is the first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub cores: Vec<CorePlan>,
}

impl Plan {
    /// Makes a plan for this process's processors.
    pub fn new(choice: &CoresChoice) -> Result<Plan, StartError> {
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        let allowed: Vec<usize> = allowed.iter().map(|c: &CoreId| c.id).collect();
        Plan::among(choice, &allowed)
    }

    fn among(choice: &CoresChoice, allowed: &[usize]) -> Result<Plan, StartError> {
        let cpus: Vec<Option<usize>> = match choice {
            CoresChoice::Auto => vec![None; allowed.len().clamp(1, AUTO_CORES_MAX)],
            CoresChoice::Unpinned(count) => vec![None; (*count).max(1)],
            CoresChoice::Count(count) => {
                if *count == 0 || *count > allowed.len() {
                    let max = allowed.len();
                    return Err(StartError::cores(format!("{count} cores asked for, 1 to {max} can be had")));
                }
                allowed.iter().take(*count).map(|&c| Some(c)).collect()
            }
            CoresChoice::List(list) => {
                if list.is_empty() {
                    return Err(StartError::cores("the list of cores is empty".to_owned()));
                }
                for (i, cpu) in list.iter().enumerate() {
                    if !allowed.contains(cpu) {
                        let reason = format!("core {cpu} cannot be used by this process, only {allowed:?}");
                        return Err(StartError::cores(reason));
                    }
                    if list[..i].contains(cpu) {
                        return Err(StartError::cores(format!("core {cpu} is listed twice")));
                    }
                }
                list.iter().map(|&c| Some(c)).collect()
            }
        };
        if cpus.len() > CORES_MAX {
            return Err(StartError::cores(format!("{} cores are more than {CORES_MAX}", cpus.len())));
        }
        let shared = cpus.len() < CORES_FOR_A_LONE_PIPELINE;
        let cores = cpus
            .into_iter()
            .enumerate()
            .map(|(i, cpu)| CorePlan { cpu, pipeline: i == 0, front: i > 0 || shared })
            .collect();
        Ok(Plan { cores })
    }

    pub fn front_count(&self) -> usize {
        self.cores.iter().filter(|c| c.front).count()
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, core) in self.cores.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(match (core.pipeline, core.front) {
                (true, true) => "pipeline+front",
                (true, false) => "pipeline",
                (false, _) => "front",
            })?;
            if let Some(cpu) = core.cpu {
                write!(f, "@{cpu}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(choice: CoresChoice, allowed: &[usize]) -> String {
        match Plan::among(&choice, allowed) {
            Ok(plan) => plan.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_pipeline_is_first_and_alone_from_four_on() {
        assert_eq!(plan(CoresChoice::Auto, &[]), "pipeline+front");
        assert_eq!(plan(CoresChoice::Auto, &[0, 1]), "pipeline+front, front");
        assert_eq!(plan(CoresChoice::Unpinned(4), &[0]), "pipeline, front, front, front");
        assert_eq!(plan(CoresChoice::Count(3), &[2, 3, 4, 5]), "pipeline+front@2, front@3, front@4");
        assert_eq!(
            plan(CoresChoice::List(vec![5, 2, 3, 4]), &[2, 3, 4, 5]),
            "pipeline@5, front@2, front@3, front@4"
        );
        let all: Vec<usize> = (0..64).collect();
        assert_eq!(Plan::among(&CoresChoice::Auto, &all).expect("a plan").cores.len(), AUTO_CORES_MAX);
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        assert!(plan(CoresChoice::Count(3), &[0, 1]).contains("3 cores asked for, 1 to 2 can be had"));
        assert!(plan(CoresChoice::Count(0), &[0, 1]).contains("0 cores asked for"));
        assert!(
            plan(CoresChoice::List(vec![7]), &[0, 1])
                .contains("core 7 cannot be used by this process, only [0, 1]")
        );
        assert!(plan(CoresChoice::List(vec![1, 1]), &[0, 1]).contains("core 1 is listed twice"));
        assert!(plan(CoresChoice::List(vec![]), &[0, 1]).contains("empty"));
    }
}
