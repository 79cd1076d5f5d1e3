// Replaces the live part of the overview by that of the page as it is now. Without this, "Update now" does.
"use strict";
const control = document.getElementById("refresh");
if (control) {
  const button = control.querySelector("button");
  const state = control.querySelector("span");
  const pause = Number(control.dataset.seconds) * 1000;
  let isPaused = false;
  control.hidden = false;
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", String(isPaused));
  });

  // Somebody who reads numbers, or has the focus on a link, must not lose the place.
  const isBusy = (live) => live.contains(document.activeElement) || live.querySelector("details[open]");

  const update = async () => {
    const live = document.getElementById("live");
    if (isPaused || document.hidden || isBusy(live)) return;
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(10000) });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      if (!answer.ok || !fresh) throw new Error("no overview");
      live.replaceWith(document.adoptNode(fresh));
      state.textContent = "";
    } catch {
      state.textContent = "The dashboard does not answer. It is asked again.";
    }
  };

  const next = async () => {
    await update();
    setTimeout(next, pause);
  };
  setTimeout(next, pause);
}
