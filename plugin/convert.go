package plugin

import (
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// each converts a list. An empty one is nil.
func each[From, To any](list []From, convert func(From) To) []To {
	var all []To
	for _, one := range list {
		all = append(all, convert(one))
	}
	return all
}

// text makes a string one that protobuf takes: an error may quote a path, which need not be UTF-8.
func text[S ~string](s S) string { return strings.ToValidUTF8(string(s), "\uFFFD") }

// instant is nanoseconds since 1970, or zero for the zero time.
func instant(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func instantFrom(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func infoToProto(i Info) *controlpb.HelloResponse {
	return &controlpb.HelloResponse{Version: i.Version, Protocols: i.Protocols.toProto(), Layout: []byte(i.Layout), Pid: int64(i.PID), Device: i.Identity.Device, Inode: i.Identity.Inode, BornNs: i.Identity.Born}
}

func infoFromProto(p *controlpb.HelloResponse) Info {
	return Info{Version: p.GetVersion(), Protocols: protocolsFromProto(p.GetProtocols()), Layout: string(p.GetLayout()), PID: int(p.GetPid()), Identity: control.Identity{Device: p.GetDevice(), Inode: p.GetInode(), Born: p.GetBornNs()}}
}

func endpointToProto(e Endpoint) *controlpb.ListenResponse {
	return &controlpb.ListenResponse{Address: e.Address, Token: e.Token, Socket: []byte(e.Socket)}
}

func endpointFromProto(p *controlpb.ListenResponse) Endpoint {
	return Endpoint{Address: p.GetAddress(), Token: p.GetToken(), Socket: string(p.GetSocket())}
}

func listenOptionsToProto(o *ListenOptions) *controlpb.ListenRequest {
	return &controlpb.ListenRequest{
		Address:      []byte(o.Address),
		Token:        o.Token,
		Socket:       o.Socket,
		ReadOnly:     o.ReadOnly,
		AllowMissing: o.AllowMissing,
		Hosts:        each(o.Hosts, text[string]),
		AllowClasses: each(o.AllowClasses, text[string]),
		DenyClasses:  each(o.DenyClasses, text[string]),
		MaxRequests:  int64(o.MaxRequests),
		MaxUploads:   int64(o.MaxUploads),
		MinChunk:     o.MinChunk,
		CertFile:     []byte(o.CertFile),
		KeyFile:      []byte(o.KeyFile),
		Passwords:    o.Passwords,
		Rules:        o.Rules,
	}
}

func listenOptionsFromProto(p *controlpb.ListenRequest) ListenOptions {
	return ListenOptions{
		Address:      string(p.GetAddress()),
		Token:        p.GetToken(),
		Socket:       p.GetSocket(),
		ReadOnly:     p.GetReadOnly(),
		AllowMissing: p.GetAllowMissing(),
		Hosts:        p.GetHosts(),
		AllowClasses: p.GetAllowClasses(),
		DenyClasses:  p.GetDenyClasses(),
		MaxRequests:  int(p.GetMaxRequests()),
		MaxUploads:   int(p.GetMaxUploads()),
		MinChunk:     p.GetMinChunk(),
		CertFile:     string(p.GetCertFile()),
		KeyFile:      string(p.GetKeyFile()),
		Passwords:    p.GetPasswords(),
		Rules:        p.GetRules(),
	}
}

func statusToProto(s Status) *controlpb.StatusResponse {
	return &controlpb.StatusResponse{
		Info:          infoToProto(s.Info),
		StartedNs:     instant(s.Started),
		Kind:          s.Kind,
		Durability:    s.Durability,
		Ending:        s.Ending,
		IdleTimeoutNs: int64(s.IdleTimeout),
		Leases: each(s.Leases, func(l LeaseStatus) *controlpb.LeaseStatus {
			return &controlpb.LeaseStatus{Pid: int64(l.PID), Command: []byte(l.Command), Version: text(l.Version), SinceNs: instant(l.Since), Addresses: each(l.Addresses, endpointToProto)}
		}),
		Repositories: int64(s.Repositories),
		Tags:         int64(s.Tags),
		Manifests:    int64(s.Manifests),
		Blobs:        int64(s.Blobs),
		Bytes:        s.Bytes,
	}
}

func statusFromProto(p *controlpb.StatusResponse) Status {
	return Status{
		Info:        infoFromProto(p.GetInfo()),
		Started:     instantFrom(p.GetStartedNs()),
		Kind:        p.GetKind(),
		Durability:  p.GetDurability(),
		Ending:      p.GetEnding(),
		IdleTimeout: time.Duration(p.GetIdleTimeoutNs()),
		Leases: each(p.GetLeases(), func(l *controlpb.LeaseStatus) LeaseStatus {
			return LeaseStatus{Holder{int(l.GetPid()), string(l.GetCommand()), l.GetVersion()}, instantFrom(l.GetSinceNs()), each(l.GetAddresses(), endpointFromProto)}
		}),
		Usage: berth.Usage{
			Repositories: int(p.GetRepositories()),
			Tags:         int(p.GetTags()),
			Manifests:    int(p.GetManifests()),
			Blobs:        int(p.GetBlobs()),
			Bytes:        p.GetBytes(),
		},
	}
}

func gcOptionsToProto(o *berth.GCOptions) *controlpb.GCRequest {
	if o == nil {
		return &controlpb.GCRequest{}
	}
	return &controlpb.GCRequest{
		DryRun:          o.DryRun,
		GraceNs:         int64(o.Grace),
		UntaggedAfterNs: int64(o.UntaggedAfter),
		MaxBytes:        o.MaxBytes,
		Keep: each(o.Keep, func(r berth.KeepRule) *controlpb.KeepRule {
			return &controlpb.KeepRule{Repositories: text(r.Repositories), Newest: int64(r.Newest)}
		}),
	}
}

func gcOptionsFromProto(p *controlpb.GCRequest) *berth.GCOptions {
	return &berth.GCOptions{
		DryRun:        p.GetDryRun(),
		Grace:         time.Duration(p.GetGraceNs()),
		UntaggedAfter: time.Duration(p.GetUntaggedAfterNs()),
		MaxBytes:      p.GetMaxBytes(),
		Keep: each(p.GetKeep(), func(r *controlpb.KeepRule) berth.KeepRule {
			return berth.KeepRule{Repositories: r.GetRepositories(), Newest: int(r.GetNewest())}
		}),
	}
}

func gcReportToProto(r berth.GCReport) *controlpb.GCReport {
	return &controlpb.GCReport{
		DryRun:      r.DryRun,
		Tags:        each(r.Tags, removalToProto),
		Manifests:   each(r.Manifests, removalToProto),
		Blobs:       int64(r.Blobs),
		Bytes:       r.Bytes,
		Spared:      int64(r.Spared),
		SparedBytes: r.SparedBytes,
		Left:        int64(r.Left),
		LeftBytes:   r.LeftBytes,
	}
}

func gcReportFromProto(p *controlpb.GCReport) berth.GCReport {
	return berth.GCReport{
		DryRun:      p.GetDryRun(),
		Tags:        each(p.GetTags(), removalFromProto),
		Manifests:   each(p.GetManifests(), removalFromProto),
		Blobs:       int(p.GetBlobs()),
		Bytes:       p.GetBytes(),
		Spared:      int(p.GetSpared()),
		SparedBytes: p.GetSparedBytes(),
		Left:        int(p.GetLeft()),
		LeftBytes:   p.GetLeftBytes(),
	}
}

func removalToProto(r berth.Removal) *controlpb.Removal {
	return &controlpb.Removal{Repository: text(r.Repository), Tag: text(r.Tag), Digest: text(r.Digest), Reason: text(r.Reason)}
}

func removalFromProto(p *controlpb.Removal) berth.Removal {
	return berth.Removal{Repository: p.GetRepository(), Tag: p.GetTag(), Digest: digest.Digest(p.GetDigest()), Reason: p.GetReason()}
}

func fsckOptionsToProto(o *berth.FsckOptions) *controlpb.FsckRequest {
	if o == nil {
		return &controlpb.FsckRequest{}
	}
	return &controlpb.FsckRequest{Repair: o.Repair}
}

func fsckOptionsFromProto(p *controlpb.FsckRequest) *berth.FsckOptions {
	return &berth.FsckOptions{Repair: p.GetRepair()}
}

func fsckReportToProto(r berth.FsckReport) *controlpb.FsckReport {
	return &controlpb.FsckReport{
		Blobs:     int64(r.Blobs),
		Bytes:     r.Bytes,
		Manifests: int64(r.Manifests),
		Tags:      int64(r.Tags),
		Sparse:    int64(r.Sparse),
		Unknown:   int64(r.Unknown),
		Problems:  each(r.Problems, problemToProto),
	}
}

func fsckReportFromProto(p *controlpb.FsckReport) berth.FsckReport {
	return berth.FsckReport{
		Blobs:     int(p.GetBlobs()),
		Bytes:     p.GetBytes(),
		Manifests: int(p.GetManifests()),
		Tags:      int(p.GetTags()),
		Sparse:    int(p.GetSparse()),
		Unknown:   int(p.GetUnknown()),
		Problems:  each(p.GetProblems(), problemFromProto),
	}
}

func problemToProto(p berth.Problem) *controlpb.Problem {
	return &controlpb.Problem{Kind: text(p.Kind), Digest: text(p.Digest), References: each(p.References, text[string]), Detail: text(p.Detail), Repaired: p.Repaired}
}

func problemFromProto(p *controlpb.Problem) berth.Problem {
	return berth.Problem{Kind: p.GetKind(), Digest: digest.Digest(p.GetDigest()), References: p.GetReferences(), Detail: p.GetDetail(), Repaired: p.GetRepaired()}
}

func localFileToProto(f berth.LocalFile) *controlpb.ImportRequest {
	return &controlpb.ImportRequest{Path: []byte(f.Path), Offset: f.Offset, Size: f.Size, Device: f.Device, Inode: f.Inode, Link: f.Link}
}

func localFileFromProto(p *controlpb.ImportRequest) berth.LocalFile {
	return berth.LocalFile{Path: string(p.GetPath()), Offset: p.GetOffset(), Size: p.GetSize(), Device: p.GetDevice(), Inode: p.GetInode(), Link: p.GetLink()}
}
