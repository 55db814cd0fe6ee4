import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SidecarError } from '../../src/errors.ts'
import { findCluster, KubernetesOptions } from '../../src/kubernetes/options.ts'

const inPod = {
  KUBERNETES_SERVICE_HOST: '10.96.0.1',
  KUBERNETES_SERVICE_PORT: '6443',
  POD_NAMESPACE: 'shop',
  POD_NAME: 'web-0',
}
const none = KubernetesOptions.parse({})

test('a pod needs no options', () => {
  assert.deepEqual(findCluster(none, inPod), {
    address: 'https://10.96.0.1:6443',
    caFile: '/var/run/secrets/kubernetes.io/serviceaccount/ca.crt',
    tokenFile: '/var/run/secrets/kubernetes.io/serviceaccount/token',
    namespace: 'shop',
    pod: 'web-0',
  })
})

test('options come before the environment', () => {
  const options = KubernetesOptions.parse({ apiServer: 'https://api.example.com', namespace: 'a', pod: 'b' })
  const { address, namespace, pod } = findCluster(options, inPod)
  assert.deepEqual([address, namespace, pod], ['https://api.example.com', 'a', 'b'])
})

test('an IPv6 service address is put in brackets, and the port is 443 unless given', () => {
  const { address } = findCluster(none, { ...inPod, KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '' })
  assert.equal(address, 'https://[fd00::1]')
})

test('without POD_NAME the host name is the name of the pod, without POD_NAMESPACE the file beside the token counts', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'certferry-options-'))
  await writeFile(join(directory, 'namespace'), 'beside\n')
  const options = KubernetesOptions.parse({ tokenFile: join(directory, 'token') })
  const { POD_NAME: _, POD_NAMESPACE: __, ...rest } = inPod
  const { namespace, pod } = findCluster(options, { ...rest, HOSTNAME: 'web-1' })
  assert.deepEqual([namespace, pod], ['beside', 'web-1'])
  await rm(directory, { recursive: true })
})

test('what is missing outside a cluster is named', () => {
  const rows: [object, RegExp][] = [
    [{ KUBERNETES_SERVICE_HOST: '' }, /^kubernetes\.apiServer is not given, nor KUBERNETES_SERVICE_HOST: /],
    [{ POD_NAME: undefined }, /^kubernetes\.pod is not given, nor POD_NAME: /],
    [
      { POD_NAMESPACE: undefined },
      /^kubernetes\.namespace is not given, nor POD_NAMESPACE, .*cannot be read \(ENOENT\)/,
    ],
    [{ POD_NAMESPACE: 'No_Label' }, /^kubernetes\.namespace: "No_Label" must be 1 to 63 /],
  ]
  for (const [env, message] of rows)
    assert.throws(
      () => findCluster({ ...none, tokenFile: '/nowhere/token' }, { ...inPod, ...env }),
      (error) => error instanceof SidecarError && error.code === 'CONFIG_INVALID' && message.test(error.message),
    )
})

test('an API server without https, or with more than an address, is refused', () => {
  for (const apiServer of [
    'http://10.0.0.1',
    'https://u:p@10.0.0.1',
    'https://10.0.0.1/path',
    'https://a?b',
    '10.0.0.1',
  ])
    assert.equal(KubernetesOptions.safeParse({ apiServer }).success, false, apiServer)
})
