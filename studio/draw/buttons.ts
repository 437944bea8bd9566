// Real buttons over the marks of a drawing, for drawings whose marks are choices: a reader of screens finds
// them by name, the Tab key stops at one of them, and the arrow keys walk among them.
import type { Mark, Marks } from "./scene";

export class Buttons {
  readonly root = document.createElement("div");
  private all: HTMLButtonElement[] = [];
  private stop = 0; // the button that the Tab key reaches

  constructor(choose: (index: number) => void, point: (index: number) => void) {
    this.root.className = "ph-buttons";
    this.root.addEventListener("click", (event) => {
      event.stopPropagation(); // the stage below chooses by the place of the pointer
      const index = this.indexOf(event);
      if (index >= 0) choose(index);
    });
    this.root.addEventListener("focusin", (event) => {
      this.reach(this.indexOf(event));
      point(this.indexOf(event));
    });
    this.root.addEventListener("focusout", () => point(-1));
  }

  /** Lay one button over each mark. */
  place(marks: Marks | undefined): void {
    const count = marks?.count ?? 0;
    while (this.all.length > count) this.all.pop()?.remove();
    for (let i = 0; i < count; i++) this.one(i, (marks as Marks).at(i));
    this.reach(
      Math.min(this.root.contains(document.activeElement) ? this.stop : (marks?.start ?? 0), count - 1),
    );
  }

  focus(index: number): void {
    this.all[index]?.focus();
  }

  private one(index: number, mark: Mark): void {
    let button = this.all[index];
    if (!button) {
      button = document.createElement("button");
      button.type = "button";
      button.tabIndex = -1;
      this.all.push(button);
      this.root.append(button);
    }
    const { x, y, width, height } = mark;
    button.setAttribute("aria-label", mark.label);
    if (mark.current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    Object.entries({ left: x, top: y, width, height }).forEach(([name, pixels]) =>
      button.style.setProperty(name, `${pixels}px`),
    );
  }

  private reach(index: number): void {
    const [before, next] = [this.all[this.stop], this.all[index]];
    if (before) before.tabIndex = -1;
    this.stop = Math.max(index, 0);
    if (next) next.tabIndex = 0;
  }

  private indexOf(event: Event): number {
    return event.target instanceof HTMLButtonElement ? this.all.indexOf(event.target) : -1;
  }
}
