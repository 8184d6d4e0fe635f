import gzip, hashlib, io, json, os, shutil, subprocess, sys, tarfile, base64
out='cases'
shutil.rmtree(out, ignore_errors=True)
def tarball(name, data):
    b=io.BytesIO()
    t=tarfile.open(fileobj=b, mode='w', format=tarfile.USTAR_FORMAT)
    i=tarfile.TarInfo(name); i.size=len(data); i.mtime=0
    t.addfile(i, io.BytesIO(data)); t.close()
    return b.getvalue()
class Case:
    def __init__(s, name):
        s.dir=f'{out}/{name}'; s.name=name; os.makedirs(s.dir+'/blobs/sha256'); s.generated=[]
    def blob(s, data, mt, /, **kw):
        if isinstance(data, str): data=data.encode()
        h=hashlib.sha256(data).hexdigest()
        open(f'{s.dir}/blobs/sha256/{h}','wb').write(data)
        d=dict(mediaType=mt, digest='sha256:'+h, size=len(data)); d.update(kw); return d
    def pattern(s, n, mt, **kw):
        data=(bytes(range(256))*(n//256+1))[:n]
        d=s.blob(data, mt, **kw); s.generated.append(f"{d['digest'][7:]} {n}"); return d
    def finish(s, top, spaces=False):
        top=dict(top); a=dict(top.get('annotations',{})); a['io.containerd.image.name']=f'localhost/parity:{s.name}'; a['org.opencontainers.image.ref.name']=s.name; top['annotations']=a
        open(s.dir+'/index.json','w').write(json.dumps(dict(schemaVersion=2,manifests=[top])))
        open(s.dir+'/oci-layout','w').write('{"imageLayoutVersion":"1.0.0"}')
        if s.generated: open(s.dir+'/generated','w').write('\n'.join(s.generated)+'\n')
def config(arch, layers, os_='linux', extra=None):
    c=dict(architecture=arch, os=os_, config=dict(Env=["PATH=/bin"],Labels={"a<b>":"&\u2028"}), rootfs=dict(type='layers', diff_ids=['sha256:'+hashlib.sha256(l).hexdigest() for l in layers]))
    if extra: c.update(extra)
    return json.dumps(c)
OCI='application/vnd.oci.image.'
DK='application/vnd.docker.'
gz=lambda b: gzip.compress(b, mtime=0)
zs=lambda b: subprocess.run(['zstd','-q','-c'],input=b,stdout=subprocess.PIPE,check=True).stdout

# 1 docker list
c=Case('docker-list'); entries=[]
for arch,plat in [('amd64',dict(architecture='amd64',os='linux')),('arm64',dict(architecture='arm64',os='linux',variant='v8')),('arm',dict(architecture='arm',os='linux',variant='v7',features=['neon']))]:
    l=[tarball('hello',arch.encode()), tarball('shared',b'shared')]
    man=dict(schemaVersion=2, mediaType=DK+'distribution.manifest.v2+json', config=c.blob(config(arch,l),DK+'container.image.v1+json'),
      layers=[c.blob(gz(l[0]),DK+'image.rootfs.diff.tar.gzip'), c.blob(l[1],DK+'image.rootfs.diff.tar')] + ([c.blob(gz(tarball('f',b'foreign')),DK+'image.rootfs.foreign.diff.tar.gzip',urls=['https://example.com/layer?a=1&b=2'])] if arch=='amd64' else []))
    entries.append(c.blob(json.dumps(man,indent=3),DK+'distribution.manifest.v2+json',platform=plat))
c.finish(c.blob(json.dumps(dict(manifests=entries,schemaVersion=2,mediaType=DK+'distribution.manifest.list.v2+json'),indent=2),DK+'distribution.manifest.list.v2+json'))

# 2 zstd
c=Case('zstd'); l=[tarball('a',b'a'*5000),tarball('b',b'b'*5000)]
c.finish(c.blob(json.dumps(dict(schemaVersion=2,config=c.blob(config('amd64',l),OCI+'config.v1+json'),layers=[c.blob(zs(l[0]),OCI+'layer.v1.tar+zstd'),c.blob(zs(l[1]),DK+'image.rootfs.diff.tar.zstd')])),OCI+'manifest.v1+json'))

# 3 attestation
c=Case('attestation'); l=[tarball('a',b'a')]
m=c.blob(json.dumps(dict(schemaVersion=2,mediaType=OCI+'manifest.v1+json',config=c.blob(config('amd64',l),OCI+'config.v1+json'),layers=[c.blob(gz(l[0]),OCI+'layer.v1.tar+gzip')])),OCI+'manifest.v1+json',platform=dict(architecture='amd64',os='linux'))
m2=c.blob(json.dumps(dict(schemaVersion=2,mediaType=OCI+'manifest.v1+json',config=c.blob(config('s390x',l),OCI+'config.v1+json'),layers=[c.blob(gz(l[0]),OCI+'layer.v1.tar+gzip')])),OCI+'manifest.v1+json',platform=dict(architecture='s390x',os='linux'))
att=c.blob(json.dumps(dict(schemaVersion=2,mediaType=OCI+'manifest.v1+json',config=c.blob(config('unknown',[b'x'],'unknown'),OCI+'config.v1+json'),layers=[c.blob(json.dumps({"_type":"https://in-toto.io/Statement/v0.1","x":"<&>"}),'application/vnd.in-toto+json',annotations={"in-toto.io/predicate-type":"https://spdx.dev/Document"})])),OCI+'manifest.v1+json',
  platform=dict(architecture='unknown',os='unknown'),annotations={"vnd.docker.reference.digest":m['digest'],"vnd.docker.reference.type":"attestation-manifest"})
noplat=c.blob(json.dumps(dict(schemaVersion=2,config=c.blob('{}','application/vnd.oci.empty.v1+json',data='e30='),layers=[c.blob(b'some artifact','application/octet-stream')],artifactType='application/<x>+json',subject=m)),OCI+'manifest.v1+json',artifactType='application/<x>+json')
nested=c.blob(json.dumps(dict(schemaVersion=2,mediaType=OCI+'index.v1+json',manifests=[m])),OCI+'index.v1+json',annotations={'nested':'yes'})
c.finish(c.blob(json.dumps(dict(schemaVersion=2,mediaType=OCI+'index.v1+json',manifests=[m2,m,att,noplat,nested],annotations={"z":"1","a":"2"})),OCI+'index.v1+json'))

# 4 forty layers and odd documents
c=Case('forty'); l=[tarball(f'f{i%37}',b'%d'%(i%37)) for i in range(40)]
ls=[c.blob(gz(x),OCI+'layer.v1.tar+gzip',annotations={"i<%d>"%i:"a&b\u2028\u2029\u0001\u007f\u00e9\U0001f600\b\f\"\\","":"empty"},unknown={"x":[1,2.5]}) for i,x in enumerate(l)]
ls[0]['urls']=['ipfs://bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu','https://x']
ls[1]['urls']=[]; ls[2]['platform']={}; ls[3]['data']=''; ls[4]['artifactType']='application/a'; ls[5]['annotations']={}; ls[6]['annotations']=None
cfg=c.blob(config('amd64',l),OCI+'config.v1+json',annotations={'B':'1','a':'2','Z':'3','\u00e9':'4','\U0001f600':'5','\uffee':'6'})
doc=json.dumps(dict(SchemaVersion=2,unknown=[{"deep":[[]]}],annotations={"org.x<y>":"&","k":None},Layers=ls,config=cfg,mediatype=OCI+'manifest.v1+json'),ensure_ascii=False,indent=1)
m=c.blob(doc,OCI+'manifest.v1+json',platform={'architecture':'amd64','os':'linux','os.features':['b<','a'],'os.version':'1'},artifactType='x',urls=['https://old'],extra=1)
c.finish(m)

# 5 sizes
c=Case('sizes')
sizes=[0,1,262143,262144,262145,524288,45613056,45613057]
ls=[c.pattern(n,OCI+'layer.v1.tar') for n in sizes]
cf=dict(architecture='amd64',os='linux',rootfs=dict(type='layers',diff_ids=[x['digest'] for x in ls]))
c.finish(c.blob(json.dumps(dict(schemaVersion=2,mediaType=OCI+'manifest.v1+json',config=c.blob(json.dumps(cf),OCI+'config.v1+json'),layers=ls)),OCI+'manifest.v1+json'))
# 6 large documents: manifest > 262144 bytes
c=Case('large-documents'); l=[tarball('a',b'a')]
m=c.blob(json.dumps(dict(schemaVersion=2,mediaType=OCI+'manifest.v1+json',config=c.blob(config('amd64',l),OCI+'config.v1+json'),layers=[c.blob(gz(l[0]),OCI+'layer.v1.tar+gzip')],annotations={f'k{i}':'v'*1000 for i in range(600)})),OCI+'manifest.v1+json')
c.finish(m)
# 7 empty index
c=Case('empty-index')
c.finish(c.blob('{ "schemaVersion":2, "manifests":[] }',OCI+'index.v1+json'))
c=Case('no-match')
l=[tarball('a',b'a')]
m=c.blob(json.dumps(dict(schemaVersion=2,config=c.blob(config('s390x',l),OCI+'config.v1+json'),layers=None)),OCI+'manifest.v1+json',platform=dict(architecture='s390x',os='linux'))
c.finish(c.blob(json.dumps(dict(schemaVersion=2,manifests=[m])),OCI+'index.v1+json'))
