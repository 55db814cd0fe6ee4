import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parse, parseAllDocuments, stringify } from 'yaml'
import { injectManifests } from '../../src/injector/manifests.ts'
import { Pod } from '../../src/injector/pod.ts'
import { admit, CONTEXT, podWith, WEB } from './kit.ts'

const inject = (source: string) => injectManifests(source, CONTEXT, 'web.yaml')
const template = (annotations: object = WEB) => ({
  metadata: { labels: { app: 'web' }, annotations },
  spec: { containers: [{ name: 'nginx', image: 'nginx:1.29', securityContext: { runAsUser: 101 } }] },
})
const workload = (kind: string, spec: object) => ({ apiVersion: 'x/v1', kind, metadata: { name: 'web' }, spec })
const DEPLOYMENT = `# The shop.
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  template:
    metadata:
      annotations:
        # one name only
        certferry.io/certificate.web: pki/issue/web?common_name=web.example.com
    spec:
      containers:
        - { name: nginx, image: "nginx:1.29" } # the server
---
apiVersion: v1
kind: Service
metadata: { name: web } # untouched
`

describe('a file of manifests', () => {
  test('gets the very pod that the webhook would make', () => {
    const { injected } = inject(stringify({ ...podWith(WEB), kind: 'Pod' }))
    const { text } = inject(stringify(podWith(WEB)))
    assert.deepEqual(Pod.parse(parse(text)), admit(podWith(WEB)).pod)
    assert.deepEqual(injected, ['Pod without a name'])
  })

  test('keeps its comments, its order and what asks for nothing', () => {
    const { text, injected } = inject(DEPLOYMENT)
    for (const comment of [
      '# The shop.\napiVersion',
      '# one name only',
      '# the server',
      '---\napiVersion: v1\nkind: Service\nmetadata: { name: web } # untouched\n',
    ])
      assert.ok(text.includes(comment), `${comment} in ${text}`)
    assert.deepEqual(injected, ['Deployment web'])
  })

  test('comes out the same when it goes in again, and changes with the context', () => {
    const once = inject(DEPLOYMENT).text
    assert.equal(inject(once).text, once)
    const newer = injectManifests(once, { ...CONTEXT, image: 'certferry:9' }, 'web.yaml').text
    assert.equal(newer, once.replace('certferry:0.1.0', 'certferry:9'))
  })

  for (const [kind, spec, path] of [
    ['StatefulSet', { template: template() }, ['spec', 'template']],
    ['DaemonSet', { template: template() }, ['spec', 'template']],
    ['Job', { template: template() }, ['spec', 'template']],
    ['CronJob', { jobTemplate: { spec: { template: template() } } }, ['spec', 'jobTemplate', 'spec', 'template']],
    ['Rollout', { template: template() }, ['spec', 'template']],
  ] as const) {
    test(`may hold a ${kind}`, () => {
      const [document] = parseAllDocuments(inject(stringify(workload(kind, spec))).text)
      assert.equal(document?.getIn([...path, 'spec', 'initContainers', 0, 'name']), 'certferry')
    })
  }

  test('may be JSON, a list, and hold anchors', () => {
    const json = JSON.stringify({
      apiVersion: 'v1',
      kind: 'List',
      items: [workload('Deployment', { template: template() }), { kind: 'Service' }],
    })
    assert.equal(parse(inject(json).text).items[0].spec.template.spec.initContainers[0].name, 'certferry')
    const anchored = stringify(
      workload('Deployment', {
        template: { ...template(), spec: { containers: [{ name: 'a', securityContext: 1 }, { name: 'b' }] } },
      }),
    )
      .replace('securityContext: 1', 'securityContext: &locked { runAsUser: 101 }')
      .replace('name: b', 'name: b\n          securityContext: *locked')
    assert.equal(parse(inject(anchored).text).spec.template.spec.containers[1].securityContext.runAsUser, 101)
  })

  test('with annotations at the workload instead of its pod is warned about', () => {
    const { warnings } = inject(
      stringify({ ...workload('Deployment', { template: template({}) }), metadata: { name: 'web', annotations: WEB } }),
    )
    assert.match(
      warnings.join(),
      /web\.yaml, Deployment web: annotations under certferry\.io\/ belong to the pod: put them at spec\.template\.metadata\.annotations/,
    )
  })

  test('is refused whole, with every trouble at its document', () => {
    const bad = stringify(workload('Deployment', { template: template({ ...WEB, 'certferry.io/inti-only': 'true' }) }))
    const error = catchError(() => inject(`${DEPLOYMENT}---\n${bad}---\na: [\n`))
    assert.match(
      error.message,
      /web\.yaml, document 3, Deployment web: certferry cannot be injected: 1 problem\n.*inti-only: .*did you mean "init-only"/,
    )
    assert.match(error.message, /web\.yaml, document 4: is not valid YAML/)
  })
})

function catchError(action: () => unknown): Error {
  try {
    action()
  } catch (error) {
    if (error instanceof Error) return error
  }
  return assert.fail('nothing was thrown')
}
