// The live view: the list of runs and the page of one, asked for again while something may change.
'use strict';

const EVERY_MS = 2000;
const page = document.getElementById('page');
const note = document.getElementById('note');
const top_ = document.getElementById('top');
let shown = '';

/** `#run=NAME&trial=N` */
function place() {
  const query = new URLSearchParams(location.hash.slice(1));
  return { run: query.get('run'), trial: query.get('trial') };
}
const link = (run, trial) => `#${new URLSearchParams(trial === undefined ? { run } : { run, trial })}`;

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.text();
}

const gib = (bytes) => `${(bytes / 2 ** 30).toFixed(1)}`;
function hardwareTiles(h) {
  const memory = h.memory_total ? `${gib(h.memory_used)} of ${gib(h.memory_total)} GiB` : 'not known on this system';
  const cpu = h.cpu_percent === null ? 'not known on this system' : `${Math.round(h.cpu_percent)} % of ${h.cores} core${h.cores === 1 ? '' : 's'}`;
  const gpus = h.gpus
    ? h.gpus.map((g, i) => tile(`gpu ${i}: ${g.name}`, `${text(g.percent)} %, ${gib(g.memory_used || 0)} of ${gib(g.memory_total || 0)} GiB`))
    : [tile('gpu', h.no_gpu)];
  return el('div', { class: 'tiles hardware' }, tile('processor', cpu), tile('memory', memory), ...gpus);
}

function listPage(data) {
  const runs = data.runs;
  const done = (r) => (r.kind === 'search' ? (r.trials ? r.trials_done / r.trials : 0) : r.max_frame ? r.frame / r.max_frame : 0);
  const progress = (r) => el('div', {}, r.kind === 'search' ? `${text(r.trials_done)} of ${text(r.trials)} trials` : `${text(r.frame)} of ${text(r.max_frame)}`,
    el('div', { class: 'bar' }, el('i', { style: `width:${(100 * Math.min(1, done(r))).toFixed(1)}%` })));
  const table = sortTable('runs', [
    { name: 'run', value: (r) => r.folder, cell: (r) => el('a', { href: link(r.folder) }, r.folder), isText: true },
    { name: 'state', value: (r) => r.state, cell: (r) => el('span', { class: `chip ${r.state}` }, r.state), isText: true },
    { name: 'score', value: (r) => r.score },
    { name: 'done', value: done, cell: progress },
    { name: 'environment', value: (r) => r.env, isText: true },
    { name: 'kind', value: (r) => r.kind, isText: true },
    { name: 'device', value: (r) => r.device, isText: true },
    { name: 'started', value: (r) => r.started, isText: true },
  ], runs, 'started');
  const of = (state) => runs.filter((r) => r.state === state).length;
  page.replaceChildren(
    el('h1', {}, 'Runs'),
    chips([[`${of('running')} running`, of('running') ? 'running' : ''], [`${of('complete')} complete`], [`${of('interrupted')} interrupted`, of('interrupted') ? 'interrupted' : '']]),
    runs.length ? card('All runs', null, table) : card('No runs yet', null, hint('slm-fast train SPEC makes one.')));
}

/** A button that asks for the animation, and the animation once it was. */
function replayCard(run, trial) {
  const state = keep(`replay-${run}-${trial}`, { url: null });
  const box = el('div');
  const show = () => box.replaceChildren(el('img', { class: 'replay', src: state.url, alt: 'The best model at play', width: 450, height: 300 }));
  const load = async () => {
    box.replaceChildren(hint('The best model plays an episode\u2026'));
    try {
      const query = new URLSearchParams(trial === null ? { run } : { run, trial });
      const answer = await fetch(`/replay.gif?${query}`);
      if (!answer.ok) throw new Error((await answer.text()).trim());
      if (state.url) URL.revokeObjectURL(state.url);
      state.url = URL.createObjectURL(await answer.blob());
      show();
    } catch (error) { box.replaceChildren(hint(error.message)); }
  };
  if (state.url) show();
  return card('Agent at play', [el('button', { type: 'button', id: 'replay', click: load }, state.url ? 'Play the model as it is now' : 'Play')], box);
}

function runPage(data, { run, trial }) {
  if (data.kind === 'experiment') {
    for (const row of data.rows) row.report = link(run, row.trial);
  } else {
    data.experiment_report = data.searched ? link(run) : null;
  }
  reportPage(page, data, [replayCard(run, trial)]);
}

async function refresh() {
  try {
    const at = place();
    const list = await ask('/api/runs');
    const data = JSON.parse(list);
    const back = at.run ? [el('p', {}, el('a', { href: '#' }, '\u2190 all runs'))] : [];
    top_.replaceChildren(...back, hardwareTiles(data.hardware));
    const entry = data.runs.find((r) => r.folder === at.run);
    // a run that does not change is asked for once
    const key = JSON.stringify([at, entry]);
    if (at.run && (key !== shown || (entry && entry.state === 'running'))) {
      const body = await ask(`/api/run?${new URLSearchParams(at.trial === null ? { run: at.run } : at)}`);
      if (key + body !== shown) { runPage(JSON.parse(body), at); shown = entry && entry.state === 'running' ? key + body : key; }
    } else if (!at.run) {
      const runs = JSON.stringify(data.runs);
      if (runs !== shown) { listPage(data); shown = runs; }
    }
    note.hidden = true;
  } catch (error) {
    note.hidden = false;
    note.textContent = error instanceof TypeError ? 'slm-fast serve does not answer; trying again.' : error.message;
  }
}

let timer = null;
async function tick() {
  clearTimeout(timer);
  // a list that is open would close
  if (!document.hidden && document.activeElement.tagName !== 'SELECT') await refresh();
  clearTimeout(timer);
  timer = setTimeout(tick, EVERY_MS);
}
addEventListener('hashchange', () => {
  shown = '';
  kept.clear();
  page.replaceChildren();
  scrollTo(0, 0);
  tick();
});
document.addEventListener('visibilitychange', tick);
tick();
