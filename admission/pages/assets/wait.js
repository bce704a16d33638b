// Makes the waiting page better where scripts run: live numbers and a countdown, no reloads.
// The words come from the server, in data-words; what a state looks like is the server's page too.
"use strict";
(() => {
  const SAY_EVERY_MS = 20_000; // a screen reader hears a new place, but not each one
  const RETRY_MS = 10_000;
  const said = document.getElementById("said");
  let main, words, source, ends, clock, lastSaid = 0, waitingToSay;

  const form = (forms, n, type = "cardinal") => {
    const kind = new Intl.PluralRules(document.documentElement.lang, { type }).select(n);
    return (forms[kind] || forms.other).replace("{n}", number(n));
  };
  const ordinal = (n) => form(words.ordinal, n, "ordinal");
  const number = (n) =>
    new Intl.NumberFormat(document.documentElement.lang, { useGrouping: n >= words.grouped_from }).format(n);
  const time = (kind, s) =>
    s < 5400 ? form(words.time[`${kind}minutes`], Math.round(s / 60))
    : form(words.time[`${kind}hours`], Math.round(s / 3600));
  const about = (s) => (s < 60 ? words.time.less : time("", s));
  const atMost = (high, wait) =>
    high < 60 || about(high) === about(wait) ? "" : time("most_", high);

  function put(id, text) {
    const place = document.getElementById(id);
    if (place && place.textContent !== text) place.textContent = text;
    return place;
  }

  // One polite sentence at a time, the newest, and never a flood.
  function say(text, atOnce) {
    clearTimeout(waitingToSay);
    const wait = atOnce ? 0 : Math.max(0, lastSaid + SAY_EVERY_MS - performance.now());
    waitingToSay = setTimeout(() => {
      lastSaid = performance.now();
      said.textContent = text;
    }, wait);
  }

  function move(ticket) {
    const place = document.getElementById("position");
    const now = number(ticket.position), wait = ticket.estimated_wait, high = ticket.estimated_wait_high;
    const moved = place.textContent !== now;
    put("position", now);
    put("people", form(words.people, ticket.queue_length));
    put("wait", wait === null ? words.time.unknown : about(wait));
    put("high", wait === null || high === null ? "" : atMost(high, wait));
    document.title = words.tab.replace("{n}", now);
    if (!moved) return;
    place.classList.remove("moved");
    void place.offsetWidth; // so that the movement begins anew
    place.classList.add("moved");
    const sentence = wait === null ? words.place : words.place_time.replace("{time}", about(wait));
    say(sentence.replace("{place}", ordinal(ticket.position)), ticket.position === 1);
  }

  function count() {
    const timer = main.querySelector("[role=timer]");
    if (!timer) return;
    const left = Math.max(0, Math.ceil((ends - performance.now()) / 1000));
    timer.textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    if (left === 0) { clearInterval(clock); setTimeout(renew, 1000); }
  }

  // Another state: the server's own page of it, in place of the old.
  async function renew() {
    stop();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.querySelector("main");
      if (!next) throw new Error("no page");
      const focused = main.contains(document.activeElement);
      main.replaceWith(next);
      document.title = page.title;
      if (focused) next.querySelector("h1").focus();
      say(next.querySelector("h1").textContent, true);
      start();
      if (next.dataset.status === "problem") setTimeout(renew, RETRY_MS);
    } catch {
      setTimeout(renew, RETRY_MS);
    }
  }

  function stop() {
    if (source) source.close();
    clearInterval(clock);
  }

  function start() {
    main = document.querySelector("main");
    if (!main.dataset.events) return;
    words = JSON.parse(main.dataset.words);
    const timer = main.querySelector("[role=timer]");
    if (timer) {
      ends = performance.now() + Number(timer.dataset.left) * 1000;
      clock = setInterval(count, 1000);
      count();
    }
    source = new EventSource(main.dataset.events);
    source.addEventListener("ticket", (event) => {
      const ticket = JSON.parse(event.data);
      if (ticket.status !== main.dataset.status || ticket.ticket_id !== main.dataset.ticket) renew();
      else if (ticket.status === "waiting" && ticket.position !== null) move(ticket);
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) { stop(); setTimeout(renew, RETRY_MS); }
    });
  }

  start();
})();
