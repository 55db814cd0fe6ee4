// Stands in for axios in the bundle: node-vault requires it, but certferry gives node-vault its own transport (undici), so it is never called.
exports.create = () => {
  throw new Error('axios is not part of this bundle; node-vault must be given a transport')
}
