"use strict";
/* State and panels. Documents come from /api/, or from window.KEPT in a page that was saved as one file. */

const $ = id => document.getElementById(id);
const state = { task: "", rounds: [], round: null, via: "", measure: "loss", mesh: null, charts: [] };

async function ask(address) {
  if (window.KEPT) {
    const known = window.KEPT[address.replace(/&via=undefined$/, "&via=")];
    if (known === undefined) throw new Error("this page was saved without it");
    return known;
  }
  const [name, query] = address.split("?");
  const coded = query ? "?" + query.split("&").map(p => { const i = p.indexOf("="); return p.slice(0, i + 1) + encodeURIComponent(p.slice(i + 1)); }).join("&") : "";
  const answer = await fetch(`/api/${name}${coded}`);
  const document_ = await answer.json();
  if (!answer.ok) throw new Error(document_.error || answer.statusText);
  return document_;
}

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter(c => c !== null && c !== undefined));
  return made;
}

function fill(place, ...children) { place.replaceChildren(...children.filter(c => c !== null)); }

function table(names, rows) {
  return node("table", {}, node("thead", {}, node("tr", {}, ...names.map(n => node("th", { scope: "col" }, n)))), node("tbody", {}, ...rows.map(cells => node("tr", {}, ...cells))));
}

const td = (text, kind) => node("td", kind ? { class: kind } : {}, text === null || text === undefined ? "–" : String(text));
const count = n => Number(n).toLocaleString("en").replaceAll(",", "\u202f");
const clock = at => at.slice(0, 19).replace("T", " ");
const where = r => `round_id=${r.round_id}&round_at=${r.round_at}`;
const share = (lost, sent, low, high) => (sent ? `${count(lost)} of ${count(sent)} = ${percent(lost / sent)}${low === undefined ? "" : ` [${percent(low)} – ${percent(high)}]`}` : "nothing sent");

function trouble(error) { $("trouble").hidden = !error; $("trouble").textContent = error ? String(error.message || error) : ""; }

async function guarded(work) { try { await work(); trouble(null); } catch (error) { trouble(error); } }

function options(select, items, chosen) {
  select.replaceChildren(...items.map(([value, text]) => node("option", { value, selected: value === chosen ? "" : null }, text)));
  if (chosen !== undefined) select.value = chosen;
}

async function start() {
  const asked = new URLSearchParams(location.hash.slice(1));
  theme(asked.get("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  const tasks = await ask("tasks");
  options($("task"), tasks.map(t => [t.task, t.task]), tasks.some(t => t.task === asked.get("task")) ? asked.get("task") : (tasks[0] || {}).task);
  if (!tasks.length) throw new Error("No round has been judged yet. Start a task, then load this page again.");
  await Promise.all([openTask(asked.get("round")), alarms(), agents()]);
}

async function openTask(round) {
  state.task = $("task").value;
  const [rounds, findings] = await Promise.all([ask(`rounds?task=${state.task}`), ask(`findings?task=${state.task}`)]);
  state.rounds = rounds;
  options($("round"), rounds.map(r => [r.round_id, `${r.round} · ${clock(r.round_at)} · ${r.verdict}`]));
  $("strip").replaceChildren(...[...rounds].reverse().map(r => node("button", { type: "button", class: r.verdict, "data-id": r.round_id, title: `round ${r.round}: ${r.verdict}, ${clock(r.round_at)}`, onclick: () => guarded(() => openRound(r.round_id)) }, `${{ succeed: "✓", fail: "✗" }[r.verdict] || "?"}${r.round}`)));
  showFindings(findings);
  const wanted = rounds.find(r => String(r.round) === round) || rounds[0];
  if (wanted) await openRound(wanted.round_id);
}

async function openRound(id) {
  const round = state.rounds.find(r => r.round_id === id);
  state.round = round;
  $("round").value = id;
  for (const button of $("strip").children) button.setAttribute("aria-current", button.dataset.id === id);
  showVerdict(round);
  const kept = state.via;
  const vias = await ask(`protocols?${where(round)}`).catch(() => []);
  options($("via"), [["", "all"], ...vias.map(v => [v, v])], vias.includes(kept) ? kept : "");
  await openMesh();
}

async function openMesh() {
  state.via = $("via").value;
  location.hash = new URLSearchParams({ task: state.task, round: state.round.round, theme: document.documentElement.dataset.theme });
  state.mesh = unpack(await ask(`mesh?${where(state.round)}&via=${state.via}`));
  $("mesh-size").textContent = `${state.mesh.rows.length} sources × ${state.mesh.columns.length} destinations, ${count(state.mesh.count)} pairs measured`;
  map.show(state.mesh);
}

function showVerdict(r) {
  const facts = [
    ["trust", r.trust], ["success", `${count(r.ok)} of ${count(r.ok + r.failed)} = ${percent(r.success_rate)}`],
    ["packet loss [95 %]", share(r.packets_lost, r.packets_sent, r.loss_low, r.loss_high)], ["p50", delay(r.p50_us)], ["p99", delay(r.p99_us)],
    ["planned", count(r.planned)], ["= stored", count(r.stored)], ["+ unsent", count(r.unsent)], ["+ missing", count(r.declared_missing)], ["+ unexplained", count(r.unexplained)],
  ];
  $("verdict-title").textContent = `Round ${r.round} of ${state.task}, ${clock(r.round_at)} UTC`;
  fill($("verdict-body"),
    node("p", {}, node("span", { class: `word ${r.verdict}` }, r.verdict), r.final ? "" : " (provisional)", `: ${r.why}`),
    node("dl", {}, ...facts.map(([name, value]) => node("div", {}, node("dt", {}, name), node("dd", {}, value)))),
    r.trust_reasons.length ? node("p", { class: "dim" }, `instrument: ${r.trust_reasons.join("; ")}`) : null);
}

/* Each element once, with its newest sentence and the rounds it was found in. */
function showFindings(findings) {
  const groups = new Map();
  for (const f of findings) {
    const key = `${f.element} ${f.direction} ${f.kind}`;
    groups.set(key, [...(groups.get(key) || []), f]);
  }
  fill($("findings"), ...[...groups.values()].slice(0, 20).map(([f, ...older]) => node("div", { class: "finding" },
    node("p", {}, f.sentence),
    node("p", { class: "dim" }, `${share(f.packets_lost, f.packets_sent, f.loss_low, f.loss_high)}; confidence ${f.confidence.toFixed(3)}; since ${clock(f.since)}; round ${[f, ...older].slice(0, 12).map(o => o.round).join(", ")}${older.length > 11 ? " …" : ""} of ${state.rounds[0] ? state.rounds[0].round : "–"}, last ${clock(f.round_at)}`),
    f.evidence_sql ? node("details", {}, node("summary", {}, "evidence as a query"), node("pre", {}, f.evidence_sql)) : null)),
    groups.size ? null : node("p", {}, "Nothing was found in these rounds."));
}

let known = [];
async function alarms() { known = await ask("alarms"); showAlarms(); }

function showAlarms() {
  $("alarms").replaceChildren(known.length ? table(["state", "since", "rounds", "severity", "what"], known.map(a => [td(a.state, `word ${a.state}`), td(clock(a.since)), td(String(a.rounds)), td(a.severity), td(a.sentence, "text")])) : node("p", {}, "No alarm was ever raised."));
}

async function agents() {
  const rows = await ask("agents");
  $("agents").replaceChildren(table(["node", "agent", "state", "silent for"], rows.map(a => [td(a.node), td(a.agent), td(a.state, `word ${a.state}`), td(`${Number(a.silent_s).toFixed(0)} s`)])));
}

function live() {
  if (window.KEPT) { $("live").textContent = "saved page"; return; }
  const stream = new EventSource("/api/alarms/stream");
  stream.addEventListener("ready", () => guarded(async () => { await alarms(); $("live").textContent = "live"; }));
  stream.onerror = () => { $("live").textContent = "reconnecting"; };
  stream.addEventListener("alarm", () => guarded(alarms));
  setInterval(() => guarded(refresh), 5000);
}

/* New rounds appear by themselves; the round that is looked at stays, unless it was the newest. */
async function refresh() {
  await agents();
  const rounds = await ask(`rounds?task=${state.task}`);
  const newest = rounds[0], had = state.rounds[0];
  if (!newest || (had && newest.round_id === had.round_id && newest.revision === had.revision)) return;
  const watching = state.round === had;
  await openTask(watching ? null : String(state.round.round));
}

function told(at, cell) {
  const src = state.mesh.rows[at.row], dst = state.mesh.columns[at.column];
  const name = m => (m.zone ? `${m.name} (${m.zone})` : m.name);
  $("cell").textContent = `${name(src)} → ${name(dst)}: ` + (cell.n ? `${count(cell.ok)} of ${count(cell.n)} requests answered, packets lost ${share(cell.lost, cell.sent)}, p99 ${cell.ok ? delay(cell.p99) : "–"}` : "not measured in this round");
}

async function openPair(at) {
  const src = state.mesh.rows[at.row].name, dst = state.mesh.columns[at.column].name;
  $("pair-title").textContent = `${src} → ${dst} and back`;
  const oldest = state.rounds[state.rounds.length - 1].round_at;
  const pair = window.KEPT ? keptPair(src, dst) : await ask(`pair?task=${state.task}&src=${src}&dst=${dst}&since=${oldest}`);
  $("pair-hint").textContent = pair.there.length + pair.back.length ? "" : "Not measured in these rounds.";
  charts(src, dst, pair);
  $("pair-requests").replaceChildren(pair.requests.length ? table(["time", "way", "protocol", "outcome", "error", "packets lost", "took", "port"], pair.requests.map(q => [
    td(clock(q.ts)), td(`${q.src_node} → ${q.dst}`), td(`${q.proto} ${q.layer}`), td(q.outcome, q.outcome === "ok" ? "" : "word fail"), td(q.error_type || "–"), td(`${q.lost} of ${q.sent}`), td(delay(q.total_us)), td(q.src_port)])) : node("p", { class: "dim" }, window.KEPT ? "Single requests are in the store, not in this saved page." : "No request between the two failed or lost a packet."));
  $("pair").scrollIntoView({ block: "nearest" });
}

function keptPair(src, dst) {
  const way = (from, to) => state.rounds.flatMap(r => {
    const kept = window.KEPT[`mesh?${where(r)}&via=${state.via}`];
    if (!kept) return [];
    const mesh = unpack(kept), row = mesh.rows.findIndex(m => m.name === from), column = mesh.columns.findIndex(m => m.name === to);
    if (row < 0 || column < 0) return [];
    const c = mesh.cell(row, column);
    return c.n ? [{ round_at: r.round_at, requests: c.n, ok: c.ok, packets_sent: c.sent, packets_lost: c.lost, p99_us: c.ok ? c.p99 : null }] : [];
  }).reverse();
  return { there: way(src, dst), back: way(dst, src), requests: [] };
}

function charts(src, dst, pair) {
  for (const chart of state.charts) chart.destroy();
  const times = [...new Set([...pair.there, ...pair.back].map(r => Date.parse(r.round_at) / 1000))].sort((a, b) => a - b);
  const series = (rounds, value) => { const by = new Map(rounds.map(r => [Date.parse(r.round_at) / 1000, value(r)])); return times.map(t => (by.has(t) ? by.get(t) : null)); };
  const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--dim"), line = style.getPropertyValue("--line");
  const draw = (id, title, value, text) => {
    if (!times.length) return null;
    const axis = { stroke: ink, grid: { stroke: line }, ticks: { stroke: line } };
    const span = times[times.length - 1] - times[0];
    const moment = t => { const iso = new Date(t * 1000).toISOString(); return span > 172800 ? iso.slice(5, 10) : span > 600 ? iso.slice(11, 16) : iso.slice(11, 19); };
    return new uPlot({
      title, width: Math.max(200, $(id).clientWidth), height: 170,
      axes: [{ ...axis, space: 70, values: (_, ticks) => ticks.map(moment) }, { ...axis, size: 76, values: (_, ticks) => ticks.map(text) }],
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      series: [{ value: (_, t) => (t ? new Date(t * 1000).toISOString().slice(0, 19).replace("T", " ") : "–") },
        { label: `${src} → ${dst}`, stroke: style.getPropertyValue("--focus"), width: 2, points: { show: times.length < 80 }, value: (_, v) => text(v) },
        { label: `${dst} → ${src}`, stroke: style.getPropertyValue("--doubt"), width: 2, dash: [6, 3], points: { show: times.length < 80 }, value: (_, v) => text(v) }],
    }, [times, series(pair.there, value), series(pair.back, value)], $(id));
  };
  const loss = r => (r.packets_sent ? r.packets_lost / r.packets_sent : null);
  state.charts = [draw("pair-loss", "packet loss", loss, v => percent(v)), draw("pair-delay", "p99 delay", r => r.p99_us, v => delay(v))].filter(Boolean);
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  map.colour(state.measure);
}

function legend() {
  $("legend").replaceChildren(...MEASURES[state.measure].names.map((text, i) => node("li", {}, node("i", { class: `s${i}`, "aria-hidden": "true" }), text)));
}

const map = new HeatMap({ scroller: $("scroller"), space: $("space"), canvas: $("canvas"), onMove: told, onOpen: at => guarded(() => openPair(at)) });
$("task").addEventListener("change", () => guarded(() => openTask(null)));
$("round").addEventListener("change", () => guarded(() => openRound($("round").value)));
$("via").addEventListener("change", () => guarded(openMesh));
$("measure").addEventListener("change", () => { state.measure = $("measure").value; legend(); map.colour(state.measure); });
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
$("zoom-in").addEventListener("click", () => map.zoom(1));
$("zoom-out").addEventListener("click", () => map.zoom(-1));
$("zoom-fit").addEventListener("click", () => map.fit());
legend();
guarded(start).then(live);
