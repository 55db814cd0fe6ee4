// npm run manifests           writes the manifests that are made from the chart: deploy/kustomize and examples/kubernetes
// npm run manifests -- --check  says which of them lag behind, and fails if one does
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import * as z from 'zod'
import { component } from '../test/support/components.ts'
import { ROOT } from './packages.ts'

const run = promisify(execFile)

/** Those of examples/kubernetes/README.md; the version is the first that has all that the chart uses. */
const VALUES = ['vault.address=https://vault.vault.svc:8200', 'vault.role=web']
const TEMPLATE = [
  '--namespace',
  'certferry',
  '--kube-version',
  '1.30.0',
  ...VALUES.flatMap((value) => ['--set', value]),
]
const HEAD = '# Made from charts/certferry by "npm run manifests"; change the chart instead.\n'

const ConfigMap = z.object({ data: z.object({ 'config.yaml': z.string() }) })

interface Manifest {
  /** Relative to the repository. */
  readonly file: string
  readonly text: string
}

/** What is to be in the files that are made from the chart. */
export async function renderManifests(): Promise<Manifest[]> {
  const { stdout } = await run(await component('helm'), ['template', 'certferry', 'charts/certferry', ...TEMPLATE], {
    cwd: ROOT,
  })
  const objects = objectsOf(stdout)
  const namespace = await readFile(join(ROOT, 'deploy/kustomize/namespace.yaml'), 'utf8')
  return [
    { file: 'examples/kubernetes/injector.yaml', text: HEAD + stream([namespace, ...objects]) },
    ...kustomizeBase(objects),
  ]
}

/** The objects of the chart as text, without what only a release of Helm is called. */
const objectsOf = (rendered: string): string[] =>
  rendered
    .replaceAll(/^(?:# Source|\s+helm\.sh\/chart|\s+app\.kubernetes\.io\/managed-by): .*\n/gm, '')
    .split(/^---\n/m)
    .filter((object) => object.trim() !== '')

const stream = (objects: readonly string[]) => objects.join('---\n')

/** Kustomize makes the ConfigMap itself, and has pods replaced by its name, so no checksum is needed. */
function kustomizeBase(objects: readonly string[]): Manifest[] {
  const [config, ...more] = objects.filter((object) => /^kind: ConfigMap$/m.test(object))
  if (config === undefined || more.length > 0) throw new Error('the chart makes more than one ConfigMap, or none')
  const { data } = ConfigMap.parse(parse(config))
  const others = objects
    .filter((object) => object !== config)
    .map((object) => object.replace(/^ {6}annotations:\n(?: {8}#.*\n)* {8}checksum\/config: .*\n/m, ''))
  return [
    { file: 'deploy/kustomize/config.yaml', text: HEAD + data['config.yaml'] },
    { file: 'deploy/kustomize/injector.yaml', text: HEAD + stream(others) },
  ]
}

/** Files that differ from what would be written. */
export async function laggingManifests(): Promise<string[]> {
  const differs = async ({ file, text }: Manifest) =>
    (await readFile(join(ROOT, file), 'utf8').catch(() => '')) !== text
  const manifests = await Promise.all(
    (await renderManifests()).map(async (manifest) => ({ ...manifest, isStale: await differs(manifest) })),
  )
  return manifests.filter(({ isStale }) => isStale).map(({ file }) => file)
}

async function main(): Promise<void> {
  if (process.argv.includes('--check')) {
    const lagging = await laggingManifests()
    for (const file of lagging) console.error(`${file} lags behind; run: npm run manifests`)
    if (lagging.length > 0) process.exitCode = 1
    return
  }
  for (const { file, text } of await renderManifests()) {
    await writeFile(join(ROOT, file), text)
    console.log(`wrote ${file}`)
  }
}

if (import.meta.main) await main()
