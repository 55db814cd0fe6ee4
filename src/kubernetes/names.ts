import type { KubernetesRequest } from './client.ts'

/** What a request is about, in the words of a Role. */
export interface Subject {
  readonly verb: string
  /** With its subresource, such as `pods/status`. */
  readonly resource: string
  /** Empty for the core group. */
  readonly group: string
  readonly namespace: string | undefined
  readonly name: string | undefined
}

type Called = Pick<KubernetesRequest, 'method' | 'path' | 'query'>

/** Of `/api/VERSION/…` or `/apis/GROUP/VERSION/…`, then `namespaces/NAMESPACE/` where there is one, `RESOURCE/NAME/SUBRESOURCE`. */
export function subjectOf({ method, path, query = {} }: Called): Subject {
  const [root, ...below] = path
  const group = root === 'apis' ? (below.shift() ?? '') : ''
  below.shift()
  const isNamespaced = below[0] === 'namespaces' && below.length > 2
  const namespace = isNamespaced ? below[1] : undefined
  const [resource = '', named, subresource] = isNamespaced ? below.slice(2) : below
  // A watch of one object is one of its collection, with its name as the only field asked for.
  const isWatch = query.watch !== undefined
  const name = named ?? /^metadata\.name=(.+)$/.exec(query.fieldSelector ?? '')?.[1]
  return {
    verb: method === 'GET' ? (isWatch ? 'watch' : named === undefined ? 'list' : 'get') : VERBS[method],
    resource: subresource === undefined ? resource : `${resource}/${subresource}`,
    group,
    namespace,
    name,
  }
}

/** Not so are `/version`, `/healthz` and the like. */
const isOfApi = ({ path: [root] }: Called) => root === 'api' || root === 'apis'

const VERBS = { POST: 'create', PUT: 'update', PATCH: 'patch', DELETE: 'delete' } as const

/** `patch deployments.apps shop/web`, or `get /version`. */
export function nameOf(request: Called): string {
  if (!isOfApi(request)) return `${request.method.toLowerCase()} /${request.path.join('/')}`
  const { verb, resource, group, namespace, name } = subjectOf(request)
  const kind = group === '' ? resource : `${resource}.${group}`
  const place = [namespace, name].filter((part) => part !== undefined).join('/')
  return `${verb} ${kind}${place && ` ${place}`}`
}

/** The rule that lets a Role do it; `verb` where it is another than the request says: an apply that makes the object is a create as well. */
export function ruleFor(request: Called, verb = subjectOf(request).verb): string {
  if (!isOfApi(request)) return `ClusterRole {nonResourceURLs: ["/${request.path.join('/')}"], verbs: ["get"]}`
  const { resource, group, namespace, name } = subjectOf(request)
  const ofName = name === undefined ? '' : `, resourceNames: ["${name}"]`
  const rule = `{apiGroups: ["${group}"], resources: ["${resource}"], verbs: ["${verb}"]${ofName}}`
  return `${namespace === undefined ? 'ClusterRole' : `Role in namespace ${namespace}`} ${rule}`
}
