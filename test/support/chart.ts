import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { parseAllDocuments } from 'yaml'
import * as z from 'zod'
import { type InjectorContext, injectPod } from '../../src/injector/inject.ts'
import { Pod } from '../../src/injector/pod.ts'
import { ROOT } from '../../tools/packages.ts'
import type { Values } from './chart-values.ts'
import { component } from './components.ts'
import { type KubernetesSetup, startKubernetes, type TestKubernetes } from './kubernetes.ts'

export const CHART = join(ROOT, 'charts/certferry')
export const EXAMPLES = join(ROOT, 'examples/kubernetes')

type Program = 'kubectl' | 'helm' | 'kubeconform' | 'kube-score'

interface Result {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** A control plane, and the programs that a chart goes through on its way there. */
export interface ChartBench extends AsyncDisposable {
  readonly cluster: TestKubernetes
  /** A folder that goes with it. */
  readonly folder: string
  /** Runs to the end, whatever the exit code; in the repository, against the cluster. */
  run(program: Program, args: readonly string[], input?: string): Promise<Result>
  /** The same, and fails with what was printed where it does not end with 0. */
  succeed(program: Program, args: readonly string[], input?: string): Promise<Result>
  kubectl(...args: readonly string[]): Promise<string>
  valuesFile(values: Values): Promise<string>
  /** `helm template` of a release certferry in the namespace certferry, for an API server of that version. */
  template(values: Values, options?: { readonly version?: string; readonly chart?: string }): Promise<Result>
  /** What it prints; fails where it fails. */
  rendered(values: Values, version?: string): Promise<string>
  /** `kubectl apply` of a stream of manifests, which the API server validates strictly and does not carry out. */
  dryRun(manifests: string): Promise<Result>
}

export async function startChartBench(setup?: KubernetesSetup): Promise<ChartBench> {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-chart-'))
  const remove = () => rm(folder, { recursive: true, force: true })
  const cluster = await startKubernetes(setup).catch(async (error) => {
    await remove()
    throw error
  })
  const run = runner(cluster, folder)
  const succeed: ChartBench['succeed'] = async (program, args, input) => {
    const result = await run(program, args, input)
    assert.equal(result.code, 0, `${program} ${args.join(' ')}\n${result.stdout}${result.stderr}`)
    return result
  }
  let files = 0
  const valuesFile = async (values: Values) => {
    files += 1
    const file = join(folder, `values-${files}.json`)
    await writeFile(file, JSON.stringify(values))
    return file
  }
  const template: ChartBench['template'] = async (values, { version = '1.36.3', chart = CHART } = {}) => {
    const release = ['template', 'certferry', chart, '-n', 'certferry', '--kube-version', version]
    return run('helm', [...release, '-f', await valuesFile(values)])
  }
  return {
    cluster,
    folder,
    run,
    succeed,
    kubectl: (...args) => cluster.kubectl(args),
    valuesFile,
    template,
    rendered: async (values, version) => {
      const { code, stdout, stderr } = await template(values, version === undefined ? {} : { version })
      assert.equal(code, 0, stderr)
      return stdout
    },
    dryRun: (manifests) => run('kubectl', ['apply', '--dry-run=server', '--validate=strict', '-f', '-'], manifests),
    [Symbol.asyncDispose]: async () => {
      await cluster[Symbol.asyncDispose]()
      await remove()
    },
  }
}

function runner({ kubeconfig }: TestKubernetes, folder: string): ChartBench['run'] {
  const { PATH, HOME } = process.env
  const helm = { HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder, HELM_DATA_HOME: folder }
  const options = { env: { PATH, HOME, KUBECONFIG: kubeconfig, ...helm }, cwd: ROOT, maxBuffer: 64 * 2 ** 20 }
  return async (program, args, input) => {
    const running = promisify(execFile)(await component(program), [...args], options)
    running.child.stdin?.end(input)
    return running.then(
      (output) => ({ code: 0, ...output }),
      (error: unknown) => Failed.parse(error),
    )
  }
}

const Failed = z.object({ code: z.number(), stdout: z.string(), stderr: z.string() })

const KubernetesObject = z.looseObject({
  kind: z.string(),
  metadata: z.looseObject({ name: z.string(), namespace: z.string().optional() }),
})

/** The objects of a stream of manifests. */
export function objectsOf(stream: string) {
  const documents = parseAllDocuments(stream)
  assert.ok(!('empty' in documents))
  return documents.map((document) => KubernetesObject.parse(document.toJS()))
}

/** Annotations of a pod that asks for a certificate. */
export const ASKING = { 'certferry.io/certificate.web': 'pki/sign/web?common_name=web.example.com' }

export const plainPod = (namespace: string, annotations: Readonly<Record<string, string>>) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'web', namespace, annotations },
  spec: { containers: [{ name: 'web', image: 'web' }] },
})

/** Of an injector with the least that it must be told. */
export const CONTEXT: InjectorContext = {
  image: 'certferry',
  nativeSidecars: true,
  vaultAnnotations: false,
  ownNamespace: undefined,
  defaults: { 'vault-address': 'https://vault.vault.svc:8200', 'vault-role': 'web' },
}

/** What that injector makes of a pod that asks. */
export function injectedPod(): Pod {
  const injection = injectPod(Pod.parse(plainPod('shop', ASKING)), CONTEXT)
  assert.equal(injection.kind, 'injected')
  return injection.pod
}
