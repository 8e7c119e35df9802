// What draws the charts: Vega, and its interpreter, which needs no `eval`.
export { parse, View } from "vega";
export { expressionInterpreter } from "vega-interpreter";
