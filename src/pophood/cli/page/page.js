
"use strict";
// Adds to the CSS: one tab stop for each text with arrow keys inside it, Escape, and pinning
// by click without a history entry per token. It makes no requests and stores nothing.
(() => {
  document.documentElement.classList.add("scripted");
  let pinned = document.querySelector("a.t.pinned");
  const pin = (token) => {
    if (pinned) pinned.classList.remove("pinned");
    pinned = pinned === token ? null : token;
    if (pinned) pinned.classList.add("pinned");
  };
  for (const text of document.querySelectorAll(".text")) {
    const tokens = [...text.querySelectorAll("a.t")];
    const focus = (index) => {
      const token = tokens[Math.max(0, Math.min(tokens.length - 1, index))];
      if (token) token.focus();
    };
    tokens.forEach((token, index) => {
      token.tabIndex = index === 0 ? 0 : -1;
      token.addEventListener("focus", () => {
        for (const other of tokens) other.tabIndex = other === token ? 0 : -1;
      });
      token.addEventListener("click", (event) => {
        event.preventDefault();
        token.focus();
        pin(token);
      });
      token.addEventListener("keydown", (event) => {
        const step = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tokens.length - 1 }[event.key];
        if (step !== undefined) focus(step);
        else if (event.key === " ") pin(token);
        else return;
        event.preventDefault();
      });
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (pinned) pin(pinned);
    if (document.activeElement) document.activeElement.blur();
  });
})();
