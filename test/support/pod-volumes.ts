import { chmod, chown, lstat, mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import * as z from 'zod'
import type { TestKubernetes } from './kubernetes.ts'
import type { AdmittedPod } from './pod-runner.ts'

const Item = z.object({ key: z.string(), path: z.string(), mode: z.int().optional() })
const Keys = { items: z.array(Item).optional(), optional: z.boolean().default(false) }
const FieldRef = z.object({ fieldPath: z.string() })
const DownwardItem = z.object({ path: z.string(), fieldRef: FieldRef, mode: z.int().optional() })

const Source = z.strictObject({
  configMap: z.object({ name: z.string(), ...Keys }).optional(),
  secret: z.object({ name: z.string(), ...Keys }).optional(),
  downwardAPI: z.object({ items: z.array(DownwardItem) }).optional(),
  serviceAccountToken: z
    .object({ audience: z.string().optional(), expirationSeconds: z.int().default(3600), path: z.string() })
    .optional(),
})
type Source = z.output<typeof Source>

const defaultMode = z.int().default(0o644)

/** The kinds of volumes that pods of the tests have; another one is refused, as it would be missing. */
export const PodVolume = z.strictObject({
  name: z.string(),
  emptyDir: z.object({ medium: z.string().optional(), sizeLimit: z.string().optional() }).optional(),
  projected: z.object({ sources: z.array(Source), defaultMode }).optional(),
  configMap: z.object({ name: z.string(), defaultMode, ...Keys }).optional(),
  secret: z.object({ secretName: z.string(), defaultMode, ...Keys }).optional(),
  downwardAPI: z.object({ items: z.array(DownwardItem), defaultMode }).optional(),
})
export type PodVolume = z.output<typeof PodVolume>

export interface VolumeRoom {
  readonly pod: AdmittedPod
  readonly cluster: TestKubernetes
  /** Where the volume is to be, as this process sees it. */
  readonly path: string
  /** Mounts a file system in memory there. */
  readonly mountMemory: (options: string) => Promise<void>
}

/** Makes a volume and what is in it, with owner and modes as the kubelet sets them. */
export async function makeVolume(volume: PodVolume, room: VolumeRoom): Promise<void> {
  const { fsGroup } = room.pod.spec.securityContext
  if (volume.emptyDir) {
    const { medium, sizeLimit } = volume.emptyDir
    if (medium === 'Memory') await room.mountMemory(`mode=0777${sizeLimit ? `,size=${bytesOf(sizeLimit)}` : ''}`)
    await chmod(room.path, 0o777)
    if (fsGroup === undefined) return
    await chown(room.path, -1, fsGroup)
    await chmod(room.path, 0o2777)
    return
  }
  await room.mountMemory('mode=0777')
  await writePayload(volume, room)
}

/** Puts what the volume is to hold now in the place of what it holds, as the kubelet does again and again. */
export async function writePayload(volume: PodVolume, room: VolumeRoom): Promise<void> {
  const sources = sourcesOf(volume)
  if (sources === undefined) return
  const mode = (volume.projected ?? volume.configMap ?? volume.secret ?? volume.downwardAPI)?.defaultMode ?? 0o644
  const files = (await Promise.all(sources.map((source) => filesOf(source, mode, room)))).flat()
  await writeAtomically(room.path, files)
  const { fsGroup } = room.pod.spec.securityContext
  if (fsGroup !== undefined) await handToGroup(room.path, fsGroup)
}

/** A plain volume is a projected one of one source. */
function sourcesOf({ projected, configMap, secret, downwardAPI }: PodVolume): Source[] | undefined {
  if (projected) return projected.sources
  if (configMap) return [{ configMap }]
  if (secret) return [{ secret: { name: secret.secretName, items: secret.items, optional: secret.optional } }]
  if (downwardAPI) return [{ downwardAPI }]
  return undefined
}

interface PayloadFile {
  readonly path: string
  readonly content: string | Buffer
  readonly mode: number
  readonly user?: number
}

async function filesOf(source: Source, mode: number, { pod, cluster }: VolumeRoom): Promise<PayloadFile[]> {
  const { configMap, secret, downwardAPI, serviceAccountToken } = source
  if (configMap) return keysOf(configMap, mode, await dataOf(cluster, pod, 'configmaps', configMap))
  if (secret) return keysOf(secret, mode, await dataOf(cluster, pod, 'secrets', secret))
  if (serviceAccountToken) {
    const { audience, expirationSeconds, path } = serviceAccountToken
    const { serviceAccountName: name = 'default' } = pod.spec
    const bound = { expirationSeconds, pod: { name: pod.metadata.name, uid: pod.metadata.uid } }
    const content = await cluster.createToken(name, pod.metadata.namespace, audience, bound)
    // For the user alone whom all containers run as; where there is no such user everybody may read it (projected.go of the kubelet).
    const user = onlyUserOf(pod)
    const isPrivate = user !== undefined || pod.spec.securityContext.fsGroup !== undefined
    return [{ path, content, mode: isPrivate ? 0o600 : mode, ...(user !== undefined && { user }) }]
  }
  return (downwardAPI?.items ?? []).map(({ path, fieldRef, mode: own }) => ({
    path,
    content: fieldOf(pod, fieldRef.fieldPath),
    mode: own ?? mode,
  }))
}

/** Whom all containers run as, if the pod says so. */
function onlyUserOf({ spec }: AdmittedPod): number | undefined {
  const users = new Set(
    [...spec.initContainers, ...spec.containers].map(
      ({ securityContext }) => securityContext.runAsUser ?? spec.securityContext.runAsUser,
    ),
  )
  const [user] = users
  return users.size === 1 ? user : undefined
}

const Data = z.object({
  data: z.record(z.string(), z.string()).default({}),
  binaryData: z.record(z.string(), z.base64()).default({}),
})

async function dataOf(
  cluster: TestKubernetes,
  pod: AdmittedPod,
  resource: 'configmaps' | 'secrets',
  { name, optional }: { readonly name: string; readonly optional: boolean },
): Promise<Map<string, Buffer>> {
  const { status, body } = await cluster.send('GET', `/api/v1/namespaces/${pod.metadata.namespace}/${resource}/${name}`)
  if (status === 404 && optional) return new Map()
  if (status !== 200) throw new Error(`MountVolume.SetUp failed: ${resource} ${name}: ${status}`)
  const { data, binaryData } = Data.parse(body)
  const encoding = resource === 'secrets' ? 'base64' : 'utf8'
  return new Map([
    ...Object.entries(data).map(([key, text]) => [key, Buffer.from(text, encoding)] as const),
    ...Object.entries(binaryData).map(([key, text]) => [key, Buffer.from(text, 'base64')] as const),
  ])
}

function keysOf(
  { items, optional }: { readonly items?: z.output<typeof Item>[] | undefined; readonly optional: boolean },
  mode: number,
  data: ReadonlyMap<string, Buffer>,
): PayloadFile[] {
  if (items === undefined) return [...data].map(([path, content]) => ({ path, content, mode }))
  return items.flatMap(({ key, path, mode: own }) => {
    const content = data.get(key)
    if (content !== undefined) return [{ path, content, mode: own ?? mode }]
    if (optional) return []
    throw new Error(`MountVolume.SetUp failed: references non-existent key ${key}`)
  })
}

/** https://kubernetes.io/docs/concepts/workloads/pods/downward-api/#available-fields, those of them that pods of the tests use. */
export function fieldOf({ metadata, spec }: AdmittedPod, path: string): string {
  const [, map, key = ''] = /^metadata\.(annotations|labels)\['(.+)'\]$/.exec(path) ?? []
  if (map === 'annotations') return metadata.annotations[key] ?? ''
  if (map === 'labels') return metadata.labels[key] ?? ''
  const fields: Readonly<Record<string, string>> = {
    'metadata.name': metadata.name,
    'metadata.namespace': metadata.namespace,
    'metadata.uid': metadata.uid,
    'spec.serviceAccountName': spec.serviceAccountName ?? 'default',
    'status.podIP': '127.0.0.1',
  }
  const value = fields[path]
  if (value === undefined) throw new Error(`the pod runner does not know the field ${path}`)
  return value
}

/** As the kubelet's atomic writer: a new folder, and one symbolic link that changes to it (pkg/volume/util/atomic_writer.go). */
async function writeAtomically(volume: string, files: readonly PayloadFile[]): Promise<void> {
  const old = (await readdir(volume)).filter((name) => /^\.\.\d/.test(name))
  const folder = `..${new Date().toISOString().replace(/[-:TZ]/g, '_')}.${process.hrtime.bigint()}`
  await mkdir(join(volume, folder))
  await chmod(join(volume, folder), 0o755)
  for (const { path, content, mode, user } of files) {
    const target = join(volume, folder, path)
    await mkdir(dirname(target), { recursive: true, mode: 0o755 })
    await writeFile(target, content)
    await chmod(target, mode)
    if (user !== undefined) await chown(target, user, -1)
  }
  await symlink(folder, join(volume, '..data_tmp'))
  await rename(join(volume, '..data_tmp'), join(volume, '..data'))
  const seen = await readdir(volume)
  for (const name of new Set(files.map(({ path }) => path.split('/')[0] ?? path)))
    if (!seen.includes(name)) await symlink(`..data/${name}`, join(volume, name))
  for (const name of old) await rm(join(volume, name), { recursive: true })
}

/** Volumes that are read only get the group, and the rights of it to read. */
async function handToGroup(path: string, group: number): Promise<void> {
  const stat = await lstat(path)
  if (stat.isSymbolicLink()) return
  await chown(path, -1, group)
  await chmod(path, (stat.mode & 0o7777) | (stat.isDirectory() ? 0o2550 : 0o440))
  if (stat.isDirectory()) for (const name of await readdir(path)) await handToGroup(join(path, name), group)
}

const UNITS: Readonly<Record<string, number>> = { '': 1, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, k: 1e3, M: 1e6, G: 1e9 }

function bytesOf(quantity: string): number {
  const [, number, unit = ''] = /^(\d+)([A-Za-z]*)$/.exec(quantity) ?? []
  const factor = UNITS[unit]
  if (number === undefined || factor === undefined) throw new Error(`the pod runner does not know the size ${quantity}`)
  return Number(number) * factor
}
