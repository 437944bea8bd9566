import { expect, test } from "vitest";
import { halves, unpacked } from "../draw/packed";
import { OFF, outcome } from "../draw/sampling";

const logits = new Float64Array([0.5, 0.3, 0.15, 0.05].map(Math.log));
const rounded = (values: Float64Array): number[] =>
  [...values].map((value) => Math.round(1000 * value) / 1000);

test("without settings the probabilities are the model's", () => {
  const { probabilities, left, entropy } = outcome(logits, OFF);
  expect(rounded(probabilities)).toEqual([0.5, 0.3, 0.15, 0.05]);
  expect(left).toBe(4);
  expect(entropy).toBeCloseTo(1.648, 3);
});

test("filters come before the temperature, and keep at least one token", () => {
  expect(outcome(logits, { ...OFF, topK: 2 }).left).toBe(2);
  expect(outcome(logits, { ...OFF, topP: 0.79 }).left).toBe(2);
  expect(outcome(logits, { ...OFF, topP: 0.81 }).left).toBe(3);
  expect(outcome(logits, { ...OFF, topP: 0.01 }).left).toBe(1);
  expect(outcome(logits, { ...OFF, minP: 0.5 }).left).toBe(2);
  expect(outcome(logits, { ...OFF, topP: 0.79, temperature: 2 }).left).toBe(2);
  expect(rounded(outcome(logits, { ...OFF, temperature: 0 }).probabilities)).toEqual([1, 0, 0, 0]);
  expect(rounded(outcome(logits, { ...OFF, temperature: 0.5, topK: 2 }).probabilities)).toEqual([
    0.735, 0.265, 0, 0,
  ]);
});

test("packed numbers have their ends and their mask", () => {
  const bytes = String.fromCharCode(0, 0, 0xfe, 0xff, 0xff, 0xff);
  expect([...unpacked(btoa(bytes), -1, 3)]).toEqual([-1, 3, Number.NaN]);
});

test("16-bit floats are read with their signs, small ones, and what is no number", () => {
  const bytes = [0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0x00, 0x7e, 0x00, 0x7c];
  expect([...halves(btoa(String.fromCharCode(...bytes)))]).toEqual([
    1,
    -2,
    2 ** -24,
    Number.NaN,
    Number.POSITIVE_INFINITY,
  ]);
});
