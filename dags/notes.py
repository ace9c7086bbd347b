"""What whoever is woken at night reads first: one note per DAG.

Belongs here: what a DAG does, what its failure means, what to do. Does not: how it does it (docs/).
"""

from __future__ import annotations

DISCOVER = """
**{name}.discover** looks for batches of `{name}` that are due and hands their names to `{name}.score`.

| | |
|---|---|
| runs | whenever a file settles in `{folder}`, and by the clock ({cron}) in case that was missed |
| skipped | nothing is due: the usual state |
| failed | the folder cannot be listed, or the ledger cannot be written. **Nothing is lost:** the next look finds it all |

**What to do**
1. `vaewatch doctor`: folder, database and registry, each with what to mend.
2. `vaewatch status {name}`: what landed, and where each batch stands.
3. It can wait a few hours: batches stay in the folder.
"""

SCORE = """
**{name}.score** checks the batches of one key against the contract, then scores those that were accepted. The key
(*partition key* of the run) is a batch, or `first..last` for the due ones in between. Running a key again changes nothing.

| red task | means | can waiting help |
|---|---|---|
| validate | storage or a check failed, not the data; tried again {retries} times by itself | yes |
| score | registry or storage failed, or the champion cannot read this contract; its log says which | see the log |
| contract | **the data broke its contract**: these batches were refused whole; the others were scored. One refused before for the same reason is only logged | no |

`score` is skipped where no batch of the key could be scored: none was accepted, or no model serves yet; they are scored once one does.

**Can the night be trusted?** The first line of the batch's report says so: `/review/report/{name}/BATCH/run.html` on this server, or `vaewatch report {name}`,
which prints the line and the file.

**What to do**
1. Read the exception in the red task's log, a little above the last lines, which are Airflow's own: `ContractRefused: …` names
   each batch that was refused, the rule and the counts.
2. `vaewatch status {name}` lists every batch with its reason; the contract's page of a batch is beside its report, under `reports/{name}/`.
3. Bad delivery: ask its sender, and put the corrected file in its place; it is found by itself.
4. Data right, contract wrong: change `{file}`, then `vaewatch validate {name} BATCH --force` and
   `vaewatch score {name} BATCH`.
5. Champion at fault: `vaewatch rollback {name} --reason "…"`, then trigger `{name}.rescore`.

By hand: trigger with a partition key, or with the parameter `batch`.
"""

TRAIN = """
**{name}.train** learns from the accepted batches of the last {window:g} days, registers a model version and judges it
by `promote.gates` against the champion, on records that neither has seen. A first model that passes serves at once; a later one that
passes becomes challenger and goes on to `{name}.promote`; one that is refused stays in the registry, with the reasons, and the earlier challenger stays challenger.

| | |
|---|---|
| runs | {cron} (UTC), one at a time in the pool `gpu` |
| skipped | `train.when` finds no occasion, or there is no champion yet and too few records to train one: the task's log says which |
| failed | **the champion serves on**: scoring is not affected tonight |
| late | a run that takes more than {hours:g} h is told in the log `vaewatch.alerts` |

The training's report is `report.html` among the run's artifacts in MLflow, and `trainings/{name}/` in the home folder.
A retry goes on from the last checkpoint. On the same records, contract and settings as an earlier run, no new version is made.

**What to do**
1. *too few records*: `vaewatch status {name}`: has anything been accepted lately?
2. Registry or storage: `vaewatch doctor`, then clear the task.
3. Anything else can wait for the morning: `vaewatch train {name}` and `vaewatch evaluate {name}` do the same by hand. With
   `--force` (here: the parameter `force`) the first trains even where `train.when` finds no occasion.
4. *refused* is no failure: `vaewatch history {name}` says why, `vaewatch compare {name}` shows the records.
"""

PROMOTE = """
**{name}.promote** makes a model version champion: {how}.

| | |
|---|---|
| failed | the current champion serves on |
| regretted | `vaewatch rollback {name} --reason "…"` puts the previous champion back, in seconds |

**What to do**
1. *no challenger, no such version*: `vaewatch versions {name}` lists them, `vaewatch history {name}` says what became of them.
   *became champion meanwhile*: another promotion came first; `vaewatch evaluate {name} --version N` judges version N against that one.
2. Registry unreachable: `vaewatch doctor`, then clear the task.
3. By hand: `vaewatch promote {name} --version N --reason "…"`, or trigger this DAG with `version` and `reason`. Without a reason, a version
   that was refused, never judged, judged against another champion, or cannot score what lands now is not promoted.
"""

WHY = "why; kept as a tag on the version; needed where something speaks against the version"

APPROVE = """
**{name}.approve** asks a person whether a trained challenger becomes champion, with what was measured of both. Answer under *Required
actions* of the run, or by REST; the note goes on record with the version. No answer within {hours:g} h is a rejection. A version that is judged
again while its question is open is not asked about twice: the later run skips, and says which run asks. If a newer version has become
challenger meanwhile, approving the older one promotes nothing: *settle* fails and says so, and the newer question names the older ones that are still open.

| | |
|---|---|
| waiting | the current champion serves on; nothing else waits for it |
| rejected | the version stays in the registry, is no longer challenger, and has `rejected_by` and `rejected_reason` as tags |
| failed | the current champion serves on, whatever was answered |

**What to do**
1. *settle* is red: its log says why. *not the challenger any more*: answer the newer question. *give a reason*: something speaks against the version, and the approval had no note: trigger this DAG with `version`, and answer with a note. Anything else: `vaewatch doctor`, then clear the task; the answer is kept.
2. Rejected by mistake, or too late: `vaewatch promote {name} --version N --reason "…"`, or trigger this DAG with `version`.
3. Regretted: `vaewatch rollback {name} --reason "…"`.
"""

RESCORE = """
**{name}.rescore** scores batches again with the champion, even those already scored: for after a rollback, a promotion or
a changed contract. Trigger it with `first` and `last` (batch ids, both included); with `check_again` it first checks
them against the contract as it is now. Each batch is replaced in one transaction: readers see the old scores or the new.

**When it fails** the batches done so far stay done; trigger it again. `vaewatch status {name}` shows the model version
that scored each batch; `vaewatch score {name} BATCH --force` does one by hand.
"""

PRUNE = """
**{name}.prune** removes model versions of `{name}` for good, with their MLflow runs and files ({cron}, UTC). It keeps the
champion, the one before it, the challenger, every version that published scores or judged records refer to, and the newest {n}.

| | |
|---|---|
| failed | nothing that serves is touched; what it had already removed is gone, and the next run removes the rest |

**What to do**
1. To look before anything goes: trigger this DAG with `dry_run`, or `vaewatch prune {name} --dry-run`. Nothing is removed; what *prune* returns says
   what would go, and why each other version stays.
2. Registry or storage: `vaewatch doctor`, then clear the task. It is not urgent: this only makes room.
"""
