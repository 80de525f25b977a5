// Sluice console: theme, dialogs, command palette, tabs, copy, keys, and what polling may and may not do.
// One file, no dependencies but htmx for swaps. The theme attribute comes from the server, so nothing flashes.
const root = document.documentElement;
const $ = (s, el = document) => el.querySelector(s), $$ = (s, el = document) => [...el.querySelectorAll(s)];
const show = (sel) => { const d = $(sel); if (d && !d.open) d.showModal(); return d; };
const say = (text) => { const live = $('#live'); if (live) live.textContent = text; };
const dark = () => (root.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
const hms = (ms) => new Date(ms).toISOString().slice(11, 19);

// ---- clicks ---------------------------------------------------------------------
document.addEventListener('click', (e) => {
  const el = e.target.closest('[data-open],[data-close],[data-copy],[data-submit],[data-print],[role=tab]');
  if (!el) { if (e.target.matches('dialog')) e.target.close(); return; }
  if (el.dataset.open && $(el.dataset.open)) { e.preventDefault(); show(el.dataset.open); }
  if ('close' in el.dataset) el.closest('dialog')?.close();
  if (el.dataset.copy) copy(el);
  if ('print' in el.dataset) window.print();
  if ('submit' in el.dataset) { e.preventDefault(); $('#palette form').requestSubmit(); }
  if (el.role === 'tab') pick(el);
});

document.addEventListener('click', (e) => { // an open menu closes when the pointer goes elsewhere
  for (const menu of $$('.who-menu[open]')) if (!menu.contains(e.target)) menu.open = false;
});

document.addEventListener('submit', (e) => { // the form works without this; with it the page does not reload
  if (!e.target.matches('[data-theme-form]')) return;
  e.preventDefault();
  root.dataset.theme = dark() ? 'light' : 'dark';
  const secure = location.protocol === 'https:' ? '; secure' : '';
  document.cookie = `sluice-theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax${secure}`;
  say(root.dataset.theme + ' theme');
});

async function copy(el) {
  try {
    await navigator.clipboard.writeText($(el.dataset.copy).innerText);
    say('Copied');
    const word = $('span', el);
    if (!word || word.dataset.was) return;
    word.dataset.was = word.textContent;
    word.textContent = 'Copied';
    setTimeout(() => { word.textContent = word.dataset.was; delete word.dataset.was; }, 2000);
  } catch { say('Copying is not allowed here; select the text instead'); }
}

function pick(tab) {
  for (const t of $$('[role=tab]', tab.closest('[role=tablist]'))) {
    const on = t === tab;
    t.setAttribute('aria-selected', on); t.tabIndex = on ? 0 : -1;
    $('#' + t.getAttribute('aria-controls')).hidden = !on;
  }
  tab.focus();
}

// ---- typing ---------------------------------------------------------------------
document.addEventListener('input', (e) => {
  const box = e.target;
  if (box.dataset.confirm !== undefined && box.dataset.for) // the button wakes only on an exact match
    $(box.dataset.for).disabled = box.value.trim() !== box.dataset.confirm;
  if (box.matches('#palette input[name=q]')) narrow(box.value.trim());
});

document.addEventListener('toggle', (e) => { // a small form that opens takes the focus
  if (e.target.matches('.who-menu[open]')) $('input:not([type=hidden])', e.target)?.focus();
}, true);

function narrow(q) { // the palette's commands by what is typed; anything typed can also be looked up
  for (const li of $$('#palette [data-command]')) li.hidden = !li.textContent.toLowerCase().includes(q.toLowerCase());
  for (const li of $$('#palette [data-asks]')) li.hidden = !q;
  $('#palette-found').replaceChildren(); // they were found for another text
  $('#palette [data-asked]').textContent = q;
  for (const head of $$('#palette [data-commands] .sub:not([data-asks])')) {
    let next = head.nextElementSibling, any = false;
    for (; next && !next.matches('.sub'); next = next.nextElementSibling) any ||= !next.hidden;
    head.hidden = !any;
  }
}

// ---- keys -----------------------------------------------------------------------
let g = 0; // "g" then a letter goes to a page
document.addEventListener('keydown', (e) => {
  if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 'k') { if ($('#palette')) { e.preventDefault(); show('#palette'); } return; }
  if (e.target.role === 'tab' && /^Arrow(Left|Right)$/.test(e.key)) return arrow(e);
  if ($('#palette')?.open && /^Arrow(Up|Down)$|^Enter$/.test(e.key)) return choose(e);
  if (e.key === 'Escape') for (const menu of $$('.who-menu[open]')) { menu.open = false; $('summary', menu).focus(); }
  if (document.body.dataset.keys === 'off' || e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.target.matches('input, textarea, select, [contenteditable]') || $('dialog[open]')) return;
  single(e);
});

function single(e) {
  const after = Date.now() - g < 900 && $(`[data-go="${CSS.escape(e.key)}"]`);
  g = 0;
  if (after) after.click();
  else if (e.key === '/') { e.preventDefault(); const q = $('main [data-search]'); if (q) { q.focus(); q.select(); } else show('#palette'); }
  else if (e.key === 'g') g = Date.now();
  else if ((e.key === 'j' || e.key === 'k') && $('[data-rows]')) {
    const rows = $$('[data-rows] .rowlink'), n = rows.indexOf(document.activeElement);
    rows[Math.min(rows.length - 1, Math.max(0, n + (e.key === 'j' ? 1 : -1)))]?.focus();
  } else if (e.key.length === 1) $(`[data-key="${CSS.escape(e.key)}"]`)?.click();
}

function arrow(e) {
  const all = $$('[role=tab]', e.target.parentNode), n = all.indexOf(e.target) + (e.key === 'ArrowRight' ? 1 : -1);
  pick(all[(n + all.length) % all.length]);
}

function choose(e) { // arrows walk the lines; Enter in the box runs the first command that fits, or looks the text up
  const all = $$('#palette li:not([hidden]) a'), n = all.indexOf(document.activeElement);
  if (e.key === 'Enter') {
    if (n >= 0) return;
    e.preventDefault();
    const command = $('#palette-found a') || $('#palette [data-command]:not([hidden]) a'), q = $('#palette input[name=q]').value.trim();
    if (command) command.click(); else if (q) $('#palette form').requestSubmit();
    return;
  }
  e.preventDefault();
  if (e.key === 'ArrowUp' && n <= 0) $('#palette input[name=q]').focus();
  else all[Math.min(all.length - 1, Math.max(0, n + (e.key === 'ArrowDown' ? 1 : -1)))]?.focus();
}

// ---- live tail: new rows on top, at most 200, held back while the reader uses the results ------------------------
const TAIL_MOST = 200;

function reading() { // the pointer or the focus is in the results, or some of their text is selected
  const results = $('#results'), picked = getSelection();
  return results && ($('table:hover', results) || $('table', results)?.contains(document.activeElement)
    || (picked && !picked.isCollapsed && results.contains(picked.anchorNode)));
}

document.addEventListener('htmx:configRequest', (e) => {
  if (e.target.matches('[data-tail]') && reading()) e.detail.parameters.hold = '1';
});

document.addEventListener('htmx:beforeRequest', (e) => {
  if (document.hidden && e.target.matches('[data-tail]')) e.preventDefault();
});

document.addEventListener('htmx:oobAfterSwap', (e) => {
  if (e.target.id === 'rows') for (const row of $$('#rows > tr').slice(TAIL_MOST)) row.remove();
});

// ---- polling: only in a visible tab, keeps what the reader has opened, and says when figures are old ----------
const STALE_MS = 15000;
const strip = () => $('#strip');
const etags = new WeakMap();
let answered = Date.now(); // when the strip was last known to be true
let stale = false, opened = [], ahead = 0; // ahead: the server's clock minus ours, ms

document.addEventListener('htmx:configRequest', (e) => {
  const el = e.target;
  if (!el.matches('[data-poll]')) return;
  const tag = etags.get(el) || el.dataset.etag;
  if (tag && !stale) e.detail.headers['If-None-Match'] = tag;
});

document.addEventListener('htmx:beforeRequest', (e) => {
  if (document.hidden && e.target.matches('[data-poll]')) e.preventDefault();
});

document.addEventListener('htmx:beforeSwap', (e) => {
  const el = e.target, xhr = e.detail.xhr;
  if (!el.matches('[data-poll]') || !xhr) return;
  if (xhr.status === 200 && xhr.getResponseHeader('ETag')) etags.set(el, xhr.getResponseHeader('ETag'));
  opened = $$('details[id][open]', el).map((d) => d.id); // what the reader has opened stays open; htmx keeps the focus by id
});

document.addEventListener('htmx:afterSwap', () => {
  for (const id of opened.splice(0)) { const d = document.getElementById(id); if (d) d.open = true; }
});

document.addEventListener('htmx:afterRequest', (e) => {
  const el = e.target, xhr = e.detail.xhr;
  if (el !== strip() || !(xhr.status === 200 || xhr.status === 304)) return;
  answered = Date.now();
  stale = false;
  announce(xhr.getResponseHeader('Sluice-Level') || el.dataset.level);
});

document.addEventListener('htmx:afterRequest', (e) => { // a live panel that got no answer says how old it is
  const mark = e.detail.successful || !e.target.matches('[data-poll]') ? null : $('[data-live]', e.target);
  if (mark) mark.textContent = `Not refreshed since ${mark.dataset.live}`;
});

function announce(level) { // says each change of level once
  const el = strip(), words = { calm: 'System status: normal', degraded: 'System status: degraded', incident: 'System status: incident', unknown: 'System status unknown' };
  if (level === el.dataset.level) return;
  el.dataset.level = level;
  say(words[level] || '');
}

function unknown() { // no answer for 15 s: every cell says so instead of the last good value
  stale = true;
  for (const cell of $$('.strip a')) {
    cell.classList.remove('bad');
    const st = document.createElement('span');
    st.className = 'st st-off';
    st.textContent = `Status unknown since ${hms(answered + ahead)}`;
    $('.v', cell).replaceChildren(st);
  }
  announce('unknown');
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden || !strip()) return;
  if (Date.now() - answered > STALE_MS) unknown();
  for (const el of $$('[data-poll]')) window.htmx?.trigger(el, 'refresh');
});

document.addEventListener('DOMContentLoaded', () => {
  const clock = $('[data-clock]');
  if (clock) ahead = Date.parse(clock.dateTime) - Date.now();
  setInterval(() => {
    if (document.hidden) return;
    if (clock) {
      const now = new Date(Date.now() + ahead);
      clock.dateTime = now.toISOString();
      clock.textContent = now.toUTCString().replace(/^(\w+), 0?(\d+ \w+) \d+ ([\d:]+) GMT$/, '$1 $2, $3 UTC');
    }
    if (strip() && !stale && Date.now() - answered > STALE_MS) unknown();
  }, 1000);
  if (/^#[\w-]+$/.test(location.hash)) { const d = $(location.hash); if (d?.matches('dialog')) show(location.hash); }
});
