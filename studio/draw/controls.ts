// Sliders, pickers and buttons beside drawings: plain elements with labels.

export interface Control {
  name: string;
  least: number;
  most: number;
  step: number;
  value: number;
  set: (value: number) => void;
  /** The value in words; the number itself if this is left out. */
  words?: (value: number) => string;
}

/** Return a slider with its name and its value. */
export function slider(control: Control): HTMLElement {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const output = document.createElement("output");
  const words = control.words ?? String;
  Object.assign(input, {
    type: "range",
    min: String(control.least),
    max: String(control.most),
    step: String(control.step),
  });
  input.value = String(control.value);
  output.textContent = words(control.value);
  input.addEventListener("input", () => {
    output.textContent = words(input.valueAsNumber);
    control.set(input.valueAsNumber);
  });
  label.append(control.name, input, output);
  return label;
}

/** Return a picker of one of several labels. */
export function picker(
  name: string,
  labels: readonly string[],
  at: number,
  set: (at: number) => void,
): HTMLLabelElement {
  const label = document.createElement("label");
  const select = document.createElement("select");
  select.append(...labels.map((text, i) => new Option(text, String(i), i === at, i === at)));
  select.addEventListener("change", () => set(select.selectedIndex));
  label.append(name, select);
  return label;
}

/** Return a button. */
export function button(words: string, click: () => void): HTMLButtonElement {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = words;
  made.addEventListener("click", click);
  return made;
}
