import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const SRC = fileURLToPath(new URL('../src', import.meta.url))

/** What every implementation of a family may see of another. */
const CONTRACTS = [
  'sources/source.ts',
  'outputs/output.ts',
  'outputs/store.ts',
  'reloaders/reloader.ts',
  'verifiers/verifier.ts',
  'observe/events.ts',
  'revocation/revocation.ts',
]
const FAMILY = { values: ['core/', 'registry.ts', 'errors.ts', 'plain-file.ts'], types: ['clock.ts'] }
/** These may work with the Kubernetes API. */
const CLUSTER_FAMILY = { ...FAMILY, values: [...FAMILY.values, 'kubernetes/'] }
/** Those that know an API. */
const CLIENT = {
  values: ['core/', 'registry.ts', 'errors.ts', 'plain-file.ts', 'abortable.ts', 'http-exchange.ts'],
  types: ['clock.ts'],
}
/** One pass, and the loop around it: they know the contracts, never one implementation. */
const FLOW_FILES = [
  'rotation.ts',
  'issuance.ts',
  'keep-fresh.ts',
  'scheduler.ts',
  'inspection.ts',
  'report.ts',
  'revocation-watch.ts',
]
const FLOW = {
  values: ['core/', 'errors.ts', 'outputs/output.ts', ...FLOW_FILES],
  types: ['clock.ts', ...CONTRACTS],
}
const ALL_BUT_COMMANDS = { values: ['*'], not: ['commands/', 'demo/', 'program.ts', 'cli.ts', 'index.ts'] }

interface Rule {
  /** May be imported; a name that ends in `/` is a folder, `*` is everything. */
  readonly values: readonly string[]
  /** May be imported with `import type` only. */
  readonly types?: readonly string[]
  readonly not?: readonly string[]
  /** Modules of Node it may use, where that is limited. */
  readonly node?: readonly string[]
}

/** Who imports whom, besides packages and the own folder: the table of docs/architecture.md. */
const RULES: Readonly<Record<string, Rule>> = {
  'errors.ts': { values: [] },
  'clock.ts': { values: [] },
  'registry.ts': { values: ['core/'] },
  'plain-file.ts': { values: [] },
  'abortable.ts': { values: [] },
  'http-exchange.ts': { values: ['abortable.ts'] },
  'watching.ts': { values: [] },
  'hardening.ts': { values: ['errors.ts'] },
  'footprint.ts': { values: [] },
  'version.ts': { values: ['../package.json'] },
  // node:net for isIP, node:url for domainToASCII: pure as well.
  'core/': { values: ['errors.ts'], node: ['node:crypto', 'node:util', 'node:net', 'node:url'] },
  // It runs in programs of others: nothing but Node.
  'client/': { values: [] },
  'text/': { values: ['core/', 'errors.ts'], node: ['node:crypto'] },
  'vault/': CLIENT,
  'kubernetes/': CLIENT,
  'values/': {
    values: ['core/', 'vault/', 'registry.ts', 'errors.ts', 'plain-file.ts'],
    types: ['clock.ts', 'sources/source.ts'],
  },
  // A DNS hook is a command like one that reloads something.
  'acme/': {
    values: ['core/', 'errors.ts', 'plain-file.ts', 'abortable.ts', 'http-exchange.ts', 'reloaders/command.ts'],
    types: ['clock.ts'],
  },
  'sources/': {
    values: [
      'core/',
      'acme/',
      'vault/',
      'kubernetes/',
      'registry.ts',
      'errors.ts',
      'plain-file.ts',
      'http-exchange.ts',
      'watching.ts',
    ],
    types: ['clock.ts'],
  },
  // The contract of a source, as a type.
  'trust/': {
    values: ['core/', 'vault/', 'registry.ts', 'errors.ts', 'plain-file.ts', 'http-exchange.ts'],
    types: ['clock.ts', 'sources/source.ts'],
  },
  'outputs/': { ...CLUSTER_FAMILY, values: [...CLUSTER_FAMILY.values, 'text/'] },
  'reloaders/': CLUSTER_FAMILY,
  'verifiers/': FAMILY,
  'revocation/': {
    values: ['core/', 'errors.ts', 'http-exchange.ts'],
    types: ['sources/source.ts', 'config/config.ts'],
  },
  'observe/': CLUSTER_FAMILY,
  ...Object.fromEntries(FLOW_FILES.map((file) => [file, FLOW])),
  'config/': {
    values: [
      'core/',
      'registry.ts',
      'errors.ts',
      'plain-file.ts',
      'watching.ts',
      'vault/options.ts',
      'kubernetes/options.ts',
      'injector/options.ts',
      'sources/index.ts',
      'outputs/index.ts',
      'outputs/output.ts',
      'outputs/secrets.ts',
      'outputs/trust.ts',
      'trust/index.ts',
      'verifiers/trust.ts',
      'values/index.ts',
      'revocation/options.ts',
      'supervisor/options.ts',
      'reloaders/index.ts',
      'verifiers/index.ts',
    ],
    types: ['clock.ts', ...CONTRACTS],
  },
  'injector/': {
    values: [
      'core/',
      'errors.ts',
      'plain-file.ts',
      'abortable.ts',
      'config/',
      'kubernetes/',
      'observe/',
      'outputs/index.ts',
    ],
    types: ['clock.ts'],
  },
  // A command of its own, as against one that reloads something.
  'supervisor/': {
    values: ['core/', 'vault/paths.ts', 'errors.ts', 'hardening.ts', 'reloaders/command.ts'],
    types: ['clock.ts', 'reloaders/options.ts'],
  },
  // What it shares with the injector: how a path of PKI and a command of vault-k8s are read.
  'migrate/': {
    values: ['core/', 'errors.ts', 'config/problems.ts', 'injector/short-forms.ts', 'injector/vault-k8s-template.ts'],
  },
  'loop.ts': ALL_BUT_COMMANDS,
  'manage.ts': ALL_BUT_COMMANDS,
  'idle.ts': ALL_BUT_COMMANDS,
  'snapshot.ts': ALL_BUT_COMMANDS,
  'sidecar.ts': ALL_BUT_COMMANDS,
  'service.ts': ALL_BUT_COMMANDS,
  'commands/': { values: ['*'], not: ['cli.ts', 'program.ts', 'index.ts'] },
  'demo/': { values: ['*'], not: ['cli.ts', 'program.ts', 'index.ts'] },
  // Commands are loaded when they are called.
  'program.ts': {
    values: ['commands/', 'supervisor/ending.ts', 'verifiers/start-tls.ts', 'core/units.ts', 'version.ts'],
  },
  'cli.ts': { values: ['program.ts', 'errors.ts', 'hardening.ts', 'core/secret.ts'], types: ['commands/io.ts'] },
  'index.ts': { values: ['*'], not: ['cli.ts', 'program.ts', 'commands/', 'demo/'] },
}

/** Packages that one file alone may import. */
const ONLY_IN: Readonly<Record<string, string>> = {
  'node-vault': 'vault/client.ts',
  liquidjs: 'text/template.ts',
}

interface Import {
  readonly from: string
  readonly line: number
  /** As written. */
  readonly specifier: string
  /** Path below src/; undefined for packages. */
  readonly to: string | undefined
  readonly typeOnly: boolean
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter(
  (file) => /\.(?:ts|mts|js|mjs)$/.test(file) && !file.endsWith('.d.ts'),
)
const sourceOf = new Map(files.map((file) => [file, readFileSync(join(SRC, file), 'utf8')]))
const imports = files.flatMap((file) => importsOf(file, sourceOf.get(file) ?? ''))

test('reads every form of import', () => {
  const text = [
    "import a from 'one'",
    "import type { A } from './two.ts'",
    "import {\n  b,\n  type C,\n} from '../three.ts'",
    "import * as d from 'four'",
    "export { e } from './five.ts'",
    "export * from './six.ts'",
    "import './seven.ts'",
    "const f = await import('./eight.ts')",
    "type G = import('./nine.ts').G",
    'const no = "it came from \'nowhere\'"',
  ]
  const seen = importsOf('core/x.ts', text.join('\n')).map(
    ({ to, specifier, typeOnly }) => (typeOnly ? 'type ' : '') + (to ?? specifier),
  )
  const expected = [
    'one',
    'type core/two.ts',
    'three.ts',
    'four',
    'core/five.ts',
    'core/six.ts',
    'core/seven.ts',
    'core/eight.ts',
    'type core/nine.ts',
  ]
  assert.deepEqual(seen, expected)
})

test('imports only point the allowed way', () => {
  assert.deepEqual(imports.flatMap(brokenRule), [])
})

test('every file falls under a rule', () => {
  assert.deepEqual(
    files
      .filter((file) => !ruleOf(file))
      .map((file) => `src/${file} has no row in the table of test/architecture.test.ts`),
    [],
  )
})

test('relative imports end in .ts', () => {
  const wrong = imports.filter(({ to, specifier }) => to?.startsWith('..') === false && !specifier.endsWith('.ts'))
  assert.deepEqual(
    wrong.map((one) => `${placeOf(one)} imports ${one.specifier}`),
    [],
  )
})

test('no file needs itself, by whatever way round', () => {
  assert.deepEqual(cycles(), [])
})

test('a package that carries risk is imported in one place', () => {
  const wrong = imports.filter(({ specifier, from }) => (ONLY_IN[specifier] ?? from) !== from)
  assert.deepEqual(
    wrong.map((one) => `${placeOf(one)} imports ${one.specifier}, which only src/${ONLY_IN[one.specifier]} may`),
    [],
  )
})

test('of undici only parts are loaded: the bundle has no whole one', () => {
  const wrong = imports.filter(({ specifier, typeOnly }) => specifier === 'undici' && !typeOnly)
  assert.deepEqual(
    wrong.map((one) => `${placeOf(one)} imports undici as a whole`),
    [],
  )
})

test('nothing has a default export', () => {
  const wrong = [...sourceOf].filter(([, source]) => /^export default\b/m.test(source) || /\bas default\b/.test(source))
  assert.deepEqual(
    wrong.map(([file]) => `src/${file} has a default export`),
    [],
  )
})

test('there is no folder for leftovers', () => {
  assert.deepEqual(
    files.filter((file) => /(?:^|\/)(?:utils?|helpers?|common|misc)(?:\/|\.ts$)/.test(file)),
    [],
  )
})

test('every implementation is in the registry of its family', () => {
  const defined = [...sourceOf]
    .filter(([, source]) => /^export const \w+ = define[A-Z]\w*\(/m.test(source))
    .map(([file]) => file)
  assert.ok(defined.length > 0, 'no implementation was found; has the way of defining them changed?')
  const registries = (file: string) => [
    `${dirname(file)}/index.ts`,
    `${dirname(file)}/secrets.ts`,
    `${dirname(file)}/trust.ts`,
  ]
  const missing = defined.filter((file) => !registries(file).some((registry) => importsFile(registry, file)))
  assert.deepEqual(
    missing.map((file) => `src/${file} is not in src/${dirname(file)}/index.ts`),
    [],
  )
})

function importsOf(from: string, source: string): Import[] {
  const clause = String.raw`(?<type>\s+type\b)?\s*(?:\w+\s*,\s*)?(?:\{[^}]*\}|\*(?:\s+as\s+\w+)?|\w+)\s*from`
  const statement = new RegExp(
    String.raw`(?:^(?:import|export)(?:${clause})?\s*|\bimport\()'(?<specifier>[^'\n]+)'\)?`,
    'gm',
  )
  return [...source.matchAll(statement)].map((match) => {
    const { type, specifier = '' } = match.groups ?? {}
    return {
      from,
      line: source.slice(0, match.index).split('\n').length,
      specifier,
      to: specifier.startsWith('.') ? normalize(join(dirname(from), specifier)) : undefined,
      typeOnly: type !== undefined || isTypeQuery(source.slice(match.index)),
    }
  })
}

/** `import('./x.ts').Name`, a type, as against `(await import('./x.ts')).name`, a value. */
function isTypeQuery(text: string): boolean {
  return /^import\('[^']+'\)\.[A-Z]/.test(text)
}

function ruleOf(file: string): Rule | undefined {
  return RULES[file] ?? RULES[`${file.split('/')[0]}/`]
}

function brokenRule(one: Import): string[] {
  const { from, to, specifier, typeOnly } = one
  const rule = ruleOf(from)
  if (!rule) return []
  if (to === undefined) {
    const limited = rule.node !== undefined && specifier.startsWith('node:') && !rule.node.includes(specifier)
    return limited
      ? [`${placeOf(one)} imports ${specifier}; ${from.split('/')[0]}/ may use only ${rule.node.join(', ')}`]
      : []
  }
  if (isSameFolder(from, to) || isAllowed(to, rule, typeOnly)) return []
  const asType = !typeOnly && isAllowed(to, rule, true) ? ' as a value; only "import type" is allowed' : ''
  return [
    `${placeOf(one)} imports src/${to}${asType}. Allowed: ${[...rule.values, ...(rule.types ?? []).map((type) => `type ${type}`)].join(', ') || 'nothing'}${rule.not ? `, but not ${rule.not.join(', ')}` : ''}`,
  ]
}

const isSameFolder = (a: string, b: string) => a.includes('/') && a.split('/')[0] === b.split('/')[0]

function isAllowed(to: string, { values, types = [], not = [] }: Rule, typeOnly: boolean): boolean {
  const covers = (name: string) => name === '*' || name === to || (name.endsWith('/') && to.startsWith(name))
  return !not.some(covers) && (values.some(covers) || (typeOnly && types.some(covers)))
}

/** Circles among imports of values; types vanish before the program runs. */
function cycles(): string[] {
  const found: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]) => {
    const start = path.indexOf(file)
    if (start >= 0) found.push([...path.slice(start), file].join(' → '))
    if (start >= 0 || done.has(file)) return
    for (const { to } of imports.filter(({ from, typeOnly }) => from === file && !typeOnly))
      if (to) visit(to, [...path, file])
    done.add(file)
  }
  for (const file of files) visit(file, [])
  return found
}

const importsFile = (from: string, to: string) =>
  imports.some((one) => one.from === from && one.to === to && !one.typeOnly)

const placeOf = ({ from, line }: Import) => `src/${from}:${line}`
