// Prints what Google's CSP Evaluator finds in a policy, as [severity, directive, description]: node csp.mjs POLICY
import { CspEvaluator, DEFAULT_CHECKS, STRICTCSP_CHECKS } from "csp_evaluator";
import { Severity } from "csp_evaluator/dist/finding.js";
import { CspParser } from "csp_evaluator/dist/parser.js";

const policy = new CspParser(process.argv[2]).csp;
const findings = new CspEvaluator(policy).evaluate([], [...DEFAULT_CHECKS, ...STRICTCSP_CHECKS]);
console.log(JSON.stringify(findings.map((found) => [Severity[found.severity], found.directive, found.description])));
