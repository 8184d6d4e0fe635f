import tarfile, io, gzip, hashlib, json, os, sys
out=sys.argv[1]; os.makedirs(out+'/blobs/sha256')
def blob(b):
    d=hashlib.sha256(b).hexdigest(); open(f'{out}/blobs/sha256/{d}','wb').write(b); return 'sha256:'+d,len(b)
def layer(files):
    t=io.BytesIO(); a=tarfile.open(fileobj=t,mode='w',format=tarfile.USTAR_FORMAT)
    for name,data,mode in files:
        i=tarfile.TarInfo(name); i.size=len(data) if data is not None else 0; i.mode=mode; i.mtime=1700000000
        if data is None: i.type=tarfile.DIRTYPE
        a.addfile(i, io.BytesIO(data) if data is not None else None)
    a.close(); raw=t.getvalue(); g=gzip.compress(raw,9,mtime=0)
    return 'sha256:'+hashlib.sha256(raw).hexdigest(), blob(g)
l1=layer([('bin',None,0o755),('bin/hello',open('hello','rb').read(),0o755)])
l2=layer([('etc',None,0o755),('etc/motd',b'made by shipfs, for shipfs\n',0o644)])
j=lambda x: json.dumps(x,separators=(',',':')).encode()
cfg=blob(j({'created':'2026-11-01T00:00:00Z','architecture':'amd64','os':'linux','config':{'Cmd':['/bin/hello'],'WorkingDir':'/'},'rootfs':{'type':'layers','diff_ids':[l1[0],l2[0]]},'history':[{'created':'2026-11-01T00:00:00Z','created_by':'bin/hello'},{'created':'2026-11-01T00:00:00Z','created_by':'etc/motd'}]}))
O='application/vnd.oci.image.'
m=blob(j({'schemaVersion':2,'mediaType':O+'manifest.v1+json','config':{'mediaType':O+'config.v1+json','digest':cfg[0],'size':cfg[1]},'layers':[{'mediaType':O+'layer.v1.tar+gzip','digest':l[1][0],'size':l[1][1]} for l in (l1,l2)]}))
open(out+'/oci-layout','w').write('{"imageLayoutVersion":"1.0.0"}')
open(out+'/index.json','wb').write(j({'schemaVersion':2,'mediaType':O+'index.v1+json','manifests':[{'mediaType':O+'manifest.v1+json','digest':m[0],'size':m[1],'annotations':{'org.opencontainers.image.ref.name':'hello'},'platform':{'architecture':'amd64','os':'linux'}}]}))
