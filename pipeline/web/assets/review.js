// Makes what a page does without a script quicker, and does it from the keyboard. Text is set as text, never as markup.
(() => {
  "use strict";
  const root = document.documentElement, base = root.dataset.base, writes = "writes" in root.dataset;
  const opinions = ["anomaly", "normal", "expected_change", "data_error", "unsure"];
  const names = { anomaly: "anomaly", normal: "normal", expected_change: "expected change", data_error: "data error", unsure: "unsure", open: "open", conflict: "conflict" };
  const one = (selector, inside = document) => inside.querySelector(selector);
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const toast = one("#toast"), record = one("article.record[data-id]");
  const rows = () => all(".row");
  // What was said on this page, the newest last: `u` takes it back. What was said elsewhere, or on an earlier page, is
  // named first, and taken back by `u` once more while that stands there.
  const mine = [one("#toast [name=act]")?.value].filter(Boolean);
  let offered = null;

  async function send(method, path, body) {
    const answer = await fetch(base + "/api" + path, {
      method, credentials: "same-origin",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": root.dataset.csrf },
      body: body === undefined ? undefined : JSON.stringify(body),
    }).catch(() => { throw new Error("the server does not answer; try again"); });
    const told = answer.status === 204 ? null : await answer.json().catch(() => ({}));
    if (!answer.ok) throw Object.assign(new Error(told?.detail || `the server says ${answer.status}`), { status: answer.status });
    return told;
  }

  const brief = text => text.length > 60 ? `${text.slice(0, 60)}…` : text;
  let fading = 0;
  function tell(text, act = "", bad = false) {
    one(".told", toast).textContent = text;
    offered = null;
    if (act && mine.at(-1) !== act) mine.push(act);
    one("form", toast).hidden = !act;
    one("[name=act]", toast).value = act;
    toast.classList.toggle("bad", bad);
    toast.setAttribute("role", bad ? "alert" : "status");
    toast.hidden = false;
    clearTimeout(fading);
    fading = setTimeout(() => { toast.hidden = true; }, bad ? 12000 : 8000);
  }
  // If somebody else is at the record, pressing the same key again gives the verdict anyway.
  const TAKEN = 409;
  let refused = "";
  function insists(what) {
    const again = refused === what;
    refused = "";
    offered = null;
    return again;
  }
  function taken(fault, what, opinion) {
    if (fault.status !== TAKEN) return;
    refused = what;
    rest(); // the second click of a double click does not answer this question
    fault.message += ` (${opinions.indexOf(opinion) + 1} once more)`;
  }
  const leftOut = said => said.claimed.length ? `; ${said.claimed.length} left out: somebody else is at ${said.claimed.length === 1 ? "it" : "them"}` : "";
  // Where records stood or stand, in the words of a page without a script; nothing where not all of them are known.
  function summed(word, states, n) {
    const all = Object.values(states), of = [...new Set(all)], count = state => all.filter(other => other === state).length;
    if (!n || all.length !== n) return "";
    return `; ${word}: ${of.length === 1 ? names[of[0]] : of.sort((a, b) => count(b) - count(a)).map(state => `${count(state)} ${names[state]}`).join(", ")}`;
  }
  const wasBefore = (said, opinion) => Object.values(said.before).some(state => state !== "open" && state !== opinion) ? summed("before", said.before, said.anomaly_ids.length) : "";
  const givenAt = act => `given ${act.given_at.slice(0, 16).replace("T", " ")} UTC`;
  const withdrawn = (done, asked) => `withdrawn: ${done.what}${asked ? `, ${givenAt(asked)}` : ""}${summed("now", done.states, done.anomaly_ids.length)}`;
  const fail = (fault, what = "") => tell(`not saved${what && `: ${what}`}: ${fault.message}`, "", true);

  // Requests go out in the order of the keys, one after another; a key can be pressed before the last answer is there.
  let turn = Promise.resolve(), waiting = 0, undoing = 0, failed = 0, deafUntil = 0, leaving = false;
  function inTurn(work) {
    waiting += 1;
    turn = turn.then(work).catch(fail).finally(() => { waiting -= 1; });
  }
  function afterwards(work) {
    const failures = failed;
    turn.then(() => { if (!leaving && failed === failures) work(); });
  }
  const isDeaf = () => leaving || performance.now() < deafUntil;
  const rest = () => { deafUntil = performance.now() + 1000; };
  // After a failure the page goes back to what was not saved; a key pressed in that moment was not meant for it.
  function goBack() {
    failed += 1;
    rest();
    if (one(".facets")) recount();
  }

  // the list
  const here = () => one(".row.here");
  function mark(row) {
    const before = here();
    if (row === before) return;
    before?.classList.remove("here");
    before?.removeAttribute("aria-current");
    row.classList.add("here");
    row.setAttribute("aria-current", "true");
  }
  function go(row, scroll = true) {
    mark(row);
    if (scroll) row.scrollIntoView({ block: "nearest" });
    one("a.key", row).focus({ preventScroll: true });
  }
  function step(by) {
    const list = rows(), at = list.indexOf(here()), next = list[at < 0 ? 0 : at + by];
    if (next) go(next);
    else if (by > 0) one("a[rel=next]")?.focus();
  }
  const ticked = () => all(".row input:checked").map(box => box.closest(".row"));
  function countTicked() {
    const n = ticked().length, place = one(".ticked");
    if (place) place.textContent = n ? `${n} ticked:` : "tick rows, or press a key:";
  }
  function restate(states) {
    for (const [id, state] of Object.entries(states)) {
      const row = document.getElementById("r-" + id);
      if (!row) continue;
      const pill = one(".stand .pill", row);
      pill.className = "pill " + state;
      pill.textContent = names[state] || state;
      row.dataset.state = state;
      row.classList.toggle("saved", state !== "open");
    }
  }
  // The filters' counts are updated once every verdict is saved; they are left alone while one of them has the focus.
  const REST = 80;
  let resting = 0;
  function recount() {
    clearTimeout(resting);
    resting = setTimeout(async () => {
      if (waiting || leaving) return; // the last answer counts
      const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
      if (!answer?.ok || waiting || leaving) return;
      const now = new DOMParser().parseFromString(await answer.text(), "text/html");
      const facets = one(".facets"), fresh = one(".facets", now);
      for (const selector of [".toolbar h1", ".toolbar .besides"]) one(selector).replaceChildren(...one(selector, now).childNodes);
      if (facets.contains(document.activeElement)) return;
      all("details", facets).forEach((more, i) => { if (more.open) all("details", fresh)[i]?.setAttribute("open", ""); });
      facets.replaceChildren(...fresh.childNodes);
    }, REST);
  }
  // A note goes with one verdict. If that is not saved, the note comes back, unless another one was begun.
  function takeNote(place) {
    const text = place?.value.trim() || "";
    if (place) place.value = "";
    return { text, giveBack: () => { if (text && !place.value) place.value = text; } };
  }
  function say(opinion) {
    if (!writes) return tell("your role may only read here", "", true);
    const several = ticked(), chosen = several.length ? several : [here()].filter(Boolean);
    if (!chosen.length) return tell("choose a record first: j, or a tick", "", true);
    const list = rows(), last = chosen[chosen.length - 1], name = brief(one("a.key", last).textContent);
    several.forEach(row => { one("input", row).checked = false; });
    countTicked();
    go(list[list.indexOf(last) + 1] || last);
    const ids = chosen.map(row => row.dataset.id), what = `${opinion} ${ids}`, anyway = insists(what), note = takeNote(one("#note"));
    inTurn(async () => {
      try {
        const said = await send("POST", "/verdicts", { anomaly_ids: ids, verdict: opinion, note: note.text, anyway });
        restate(said.states);
        recount();
        const n = said.anomaly_ids.length;
        tell((n ? `${names[opinion]}: ${ids.length === 1 ? name : `${n} record${n === 1 ? "" : "s"}`}${wasBefore(said, opinion)}${said.conflicts.length ? ", reviewers differ" : ""}` : "said before: nothing changed") + leftOut(said), n ? said.act : "");
      } catch (fault) {
        goBack();
        note.giveBack();
        chosen.forEach(row => { const pill = one(".stand .pill", row); pill.className = "pill unsaved"; pill.textContent = "not saved"; });
        several.forEach(row => { one("input", row).checked = true; });
        countTicked();
        go(chosen[0]);
        taken(fault, what, opinion);
        fail(fault, several.length > 1 ? `${several.length} records` : name);
      }
    });
  }
  function undo() {
    if (!writes || leaving) return;
    const failures = failed, asked = toast.hidden ? null : offered;
    insists("");
    undoing += 1;
    inTurn(async () => {
      let own;
      try {
        if (failed > failures) return; // what was to be taken back was not saved
        own = asked ? "" : mine.pop();
        const act = asked?.act || own;
        if (!act) return askBack(await send("GET", "/acts/newest"));
        const done = await send("POST", `/acts/${encodeURIComponent(act)}/undo`);
        restate(done.states);
        const n = done.anomaly_ids.length;
        if (n && (record || one(".groups") || one(".tiles"))) {
          const kept = new URL(location.href);
          kept.searchParams.delete("act");
          kept.searchParams.set("told", withdrawn(done, asked));
          return leave(record && n === 1 ? `${base}/record/${done.anomaly_ids[0]}?${kept.searchParams}` : kept, true);
        }
        tell(n ? withdrawn(done, asked) : `taken back already: ${done.what}`);
        if (one(".facets")) recount();
        const back = n && document.getElementById("r-" + done.anomaly_ids[0]);
        if (back) go(back);
      } catch (fault) {
        goBack();
        if (own) mine.push(own);
        tell(`not taken back: ${fault.message}`, "", true);
      } finally { undoing -= 1; }
    });
  }
  function askBack(newest) {
    rest(); // as with a claim
    tell(`not said on this page: ${newest.what}, ${givenAt(newest)}; take it back? (u once more)`, "", true);
    one("form", toast).hidden = false;
    offered = newest;
  }
  // This page still hears the keys until the next one is there.
  function leave(to, replaces = false) {
    leaving = true;
    if (replaces) location.replace(to); else location.assign(to);
  }

  // groups
  const groups = () => all(".group:not(.saved)"), hereGroup = () => one(".group.here");
  function goGroup(group) {
    hereGroup()?.classList.remove("here");
    if (!group) return;
    group.classList.add("here");
    group.scrollIntoView({ block: "nearest" });
    one(".exemplar a.key", group).focus({ preventScroll: true });
  }
  function stepGroup(by) {
    const list = all(".group"), at = list.indexOf(hereGroup());
    goGroup(list[at < 0 ? 0 : at + by] || hereGroup());
  }
  function sayOfGroup(group, opinion) {
    if (!writes || !group || group.classList.contains("saved")) return;
    const { dataset, signature, n, ...part } = group.dataset, label = one(".all", group), before = label.textContent;
    const asked = `${opinion} ${JSON.stringify(group.dataset)}`, many = `many: ${asked}`;
    const isSure = refused === asked || (refused === many && !toast.hidden), anyway = insists(asked);
    if (Number(n) > Number(one(".groups").dataset.many) && !isSure) {
      rest();
      tell(`${names[opinion]}: all ${Number(n).toLocaleString("en")} records, ${brief(one(".signature", group).textContent)}? (${opinions.indexOf(opinion) + 1} once more)`, "", true);
      refused = many;
      return;
    }
    const settle = saved => {
      group.classList.toggle("saved", saved);
      all("button", group).forEach(button => { button.disabled = saved; });
      label.textContent = saved ? `${n} × ${names[opinion]}` : before;
    };
    settle(true);
    goGroup(groups().find(other => group.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING) || group);
    const note = takeNote(one(".note", group));
    inTurn(async () => {
      const what = brief(one(".signature", group).textContent);
      try {
        const said = await send("POST", "/groups/verdicts", { dataset, signature, ...part, verdict: opinion, note: note.text, n: Number(n), anyway });
        const given = said.anomaly_ids.length;
        label.textContent = `${given} × ${names[opinion]}`;
        tell(`${names[opinion]}: ${given} record${given === 1 ? "" : "s"}, ${what}${leftOut(said)}`, said.act);
      } catch (fault) {
        goBack();
        settle(false);
        note.giveBack();
        goGroup(group);
        taken(fault, asked, opinion);
        fail(fault, what);
      }
    });
  }

  // one record
  function sayOfRecord(opinion) {
    if (!writes) return tell("your role may only read here", "", true);
    if (leaving) return;
    leaving = true;
    const form = one("form.saying"), button = one(`.say.${opinion}`, form), anyway = insists(opinion);
    button.classList.add("hit");
    inTurn(async () => {
      try {
        const body = { anomaly_ids: [record.dataset.id], verdict: opinion, note: one("#note").value, settle: !!one("[name=settle]", form), anyway };
        const said = await send("POST", "/verdicts", body);
        const text = said.anomaly_ids.length ? `${names[opinion]}: ${brief(one("h1", record).textContent.trim())}${wasBefore(said, opinion)}${said.conflicts.length ? "; reviewers differ" : ""}` : "said before: nothing changed";
        const next = said.conflicts.length ? null : one(".walk a[rel=next]");
        const to = new URL(next ? next.href : location.href);
        to.searchParams.set("told", text);
        if (said.anomaly_ids.length) to.searchParams.set("act", said.act);
        leave(to);
      } catch (fault) {
        leaving = false;
        button.classList.remove("hit");
        taken(fault, opinion, opinion);
        fail(fault);
      }
    });
  }
  // Whoever stays a second claims the record. The claim is renewed while the page is visible, and given back on leaving.
  const DWELL = 1000, RENEW = 4 * 60 * 1000;
  let claimed = false;
  async function claim() {
    if (document.hidden || leaving) return;
    try {
      const held = await send("POST", `/records/${record.dataset.id}/claim`);
      claimed = held.is_mine;
      const until = `until ${held.until.slice(0, 16).replace("T", " ")} UTC`;
      one("[data-claim]").textContent = claimed ? `yours ${until}; others are told` : `${held.by} is at this record ${until}; you are asked to confirm a verdict`;
    } catch { /* the record can be judged without a claim */ }
  }
  function release() {
    if (!claimed) return;
    claimed = false;
    fetch(`${base}/api/records/${record.dataset.id}/claim`, { method: "DELETE", credentials: "same-origin", keepalive: true, headers: { "X-CSRF-Token": root.dataset.csrf } }).catch(() => {});
  }
  // Parts that read a batch or a model are fetched as the reader comes near them; without a script, a link stands there.
  async function fillPart(place) {
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(place.dataset.part, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(`the server says ${answer.status}`);
      const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
      place.replaceChildren(...parsed.body.childNodes);
    } catch (fault) {
      one("p", place)?.append(`: that did not work (${fault.message}); the link tries again`);
    }
    place.removeAttribute("aria-busy");
    const below = place.nextElementSibling || place.closest("section").nextElementSibling || place;
    above.set(below, place);
    unseen.observe(below);
  }
  // Room that was kept for a part and not needed is given back once what is below is out of sight: nothing moves that is read.
  const above = new Map();
  const unseen = new IntersectionObserver(places => {
    for (const { isIntersecting, target } of places) {
      if (isIntersecting) continue;
      unseen.unobserve(target);
      above.get(target).classList.add("filled");
    }
  });
  const nearing = new IntersectionObserver(places => {
    for (const { isIntersecting, target } of places) {
      if (!isIntersecting) continue;
      nearing.unobserve(target);
      fillPart(target);
    }
  }, { rootMargin: "400px" });

  document.addEventListener("keydown", event => {
    const typing = event.target.closest("input:not([type=checkbox]), textarea, select, dialog");
    if (event.key === "Escape" && typing && !event.target.closest("dialog")) return event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.repeat && event.key !== "j" && event.key !== "k") return; // a key that is held says nothing twice
    const opinion = opinions[Number(event.key) - 1];
    const acts = {
      "?": () => one("#keys").showModal(),
      "/": () => one("#search")?.focus(),
      u: undo,
      n: () => (one("#note") || one(".note", hereGroup() || document))?.focus(),
      j: () => record ? one(".walk a[rel=next]")?.click() : one(".groups") ? stepGroup(1) : step(1),
      k: () => record ? one(".walk a[rel=prev]")?.click() : one(".groups") ? stepGroup(-1) : step(-1),
      x: () => { const box = here() && one("input[type=checkbox]", here()); if (box) { box.checked = !box.checked; countTicked(); } },
      Escape: () => record && one(".walk .up").click(),
    };
    const act = opinion ? () => (record ? sayOfRecord(opinion) : one(".groups") ? sayOfGroup(hereGroup(), opinion) : one(".rows") && say(opinion)) : acts[event.key];
    if (!act || (event.key === "Escape" && !record)) return;
    event.preventDefault();
    if ((opinion || event.key === "u") && isDeaf()) return;
    if (undoing && (opinion || event.key === "j" || event.key === "k")) afterwards(act); // it is about where undo leads
    else act();
  });
  document.addEventListener("click", event => {
    const button = event.target.closest(".say");
    if (event.target.closest("[data-keys]")) return one("#keys").showModal();
    if (button && button.form?.id === "bulk") { event.preventDefault(); return isDeaf() || say(button.value); }
    if (button && button.form?.classList.contains("saying")) { event.preventDefault(); return isDeaf() || sayOfRecord(button.value); }
    if (button && button.form?.classList.contains("group-say")) { event.preventDefault(); return isDeaf() || sayOfGroup(button.closest(".group"), button.value); }
    if (event.target.closest("#toast button")) { event.preventDefault(); return undo(); }
    const link = event.target.closest("a[href]");
    if (link && (waiting || leaving) && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      return afterwards(() => link.click());
    }
    const row = event.target.closest(".row");
    if (row && !event.target.closest("a, input")) go(row, false);
  });
  document.addEventListener("change", event => { if (event.target.closest(".row")) countTicked(); });
  document.addEventListener("focusin", event => { const row = event.target.closest(".row"); if (row) mark(row); });
  addEventListener("beforeunload", event => { if (waiting && !leaving) event.preventDefault(); });
  addEventListener("pageshow", event => { if (event.persisted) location.reload(); });

  if (window !== window.parent) window.focus(); // inside Airflow: the keys are for this page
  if (matchMedia("(max-width: 900px)").matches) one(".filter-box")?.removeAttribute("open");
  root.classList.add("scripted"); // until then the style sheet keeps the filters of a small screen shut: nothing moves
  if (record && writes && record.dataset.state === "open") {
    setTimeout(claim, DWELL);
    setInterval(claim, RENEW);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) claim(); });
    addEventListener("pagehide", release);
  }
  all("[data-part]").forEach(place => nearing.observe(place));
  const clean = new URL(location.href);
  if (clean.searchParams.has("told")) {
    clean.searchParams.delete("told");
    clean.searchParams.delete("act");
    history.replaceState(null, "", clean);
    fading = setTimeout(() => { toast.hidden = true; }, 8000);
  }
  const marked = location.hash.startsWith("#r-") && document.getElementById(location.hash.slice(1));
  if (marked) go(marked);
})();
