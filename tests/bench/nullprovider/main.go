// A provider that manages nothing: what a provider in Go costs Terraform beside ours, with the same schema.
//
// It serves the schema of the file that NULLPROVIDER_SCHEMA names (a tfplugin6 GetProviderSchema.Response), plans what
// is configured, with what the provider would compute unknown, and applies it with null in the place of the unknown.
package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/golang/protobuf/proto"
	"github.com/hashicorp/go-plugin"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"github.com/zclconf/go-cty/cty/msgpack"
	"google.golang.org/grpc"
	"tfplugin6"
)

type provider struct {
	tfplugin6.UnimplementedProviderServer
	schema *tfplugin6.GetProviderSchema_Response
	types  map[string]cty.Type
}

func (p *provider) GetProviderSchema(context.Context, *tfplugin6.GetProviderSchema_Request) (*tfplugin6.GetProviderSchema_Response, error) {
	return p.schema, nil
}

func (p *provider) ValidateProviderConfig(_ context.Context, asked *tfplugin6.ValidateProviderConfig_Request) (*tfplugin6.ValidateProviderConfig_Response, error) {
	return &tfplugin6.ValidateProviderConfig_Response{}, nil
}

func (p *provider) ConfigureProvider(context.Context, *tfplugin6.ConfigureProvider_Request) (*tfplugin6.ConfigureProvider_Response, error) {
	return &tfplugin6.ConfigureProvider_Response{}, nil
}

func (p *provider) ValidateResourceConfig(_ context.Context, asked *tfplugin6.ValidateResourceConfig_Request) (*tfplugin6.ValidateResourceConfig_Response, error) {
	_, err := p.read(asked.TypeName, asked.Config)
	return &tfplugin6.ValidateResourceConfig_Response{}, err
}

func (p *provider) UpgradeResourceState(_ context.Context, asked *tfplugin6.UpgradeResourceState_Request) (*tfplugin6.UpgradeResourceState_Response, error) {
	of := p.types[asked.TypeName]
	state, err := ctyjson.Unmarshal(asked.RawState.Json, of)
	if err != nil {
		return nil, err
	}
	upgraded, err := p.write(asked.TypeName, state)
	return &tfplugin6.UpgradeResourceState_Response{UpgradedState: upgraded}, err
}

func (p *provider) ReadResource(_ context.Context, asked *tfplugin6.ReadResource_Request) (*tfplugin6.ReadResource_Response, error) {
	state, err := p.read(asked.TypeName, asked.CurrentState)
	if err != nil {
		return nil, err
	}
	found, err := p.write(asked.TypeName, state)
	return &tfplugin6.ReadResource_Response{NewState: found, Private: asked.Private}, err
}

func (p *provider) PlanResourceChange(_ context.Context, asked *tfplugin6.PlanResourceChange_Request) (*tfplugin6.PlanResourceChange_Response, error) {
	prior, err := p.read(asked.TypeName, asked.PriorState)
	if err != nil {
		return nil, err
	}
	proposed, err := p.read(asked.TypeName, asked.ProposedNewState)
	if err != nil {
		return nil, err
	}
	if prior.IsNull() {
		proposed = p.withUnknowns(asked.TypeName, proposed)
	}
	planned, err := p.write(asked.TypeName, proposed)
	return &tfplugin6.PlanResourceChange_Response{PlannedState: planned, PlannedPrivate: asked.PriorPrivate}, err
}

func (p *provider) ApplyResourceChange(_ context.Context, asked *tfplugin6.ApplyResourceChange_Request) (*tfplugin6.ApplyResourceChange_Response, error) {
	planned, err := p.read(asked.TypeName, asked.PlannedState)
	if err != nil {
		return nil, err
	}
	known, err := cty.Transform(planned, func(_ cty.Path, value cty.Value) (cty.Value, error) {
		if value.IsKnown() {
			return value, nil
		}
		return cty.NullVal(value.Type()), nil
	})
	if err != nil {
		return nil, err
	}
	applied, err := p.write(asked.TypeName, known)
	return &tfplugin6.ApplyResourceChange_Response{NewState: applied, Private: asked.PlannedPrivate}, err
}

func (p *provider) StopProvider(context.Context, *tfplugin6.StopProvider_Request) (*tfplugin6.StopProvider_Response, error) {
	return &tfplugin6.StopProvider_Response{}, nil
}

func (p *provider) read(name string, value *tfplugin6.DynamicValue) (cty.Value, error) {
	return msgpack.Unmarshal(value.Msgpack, p.types[name])
}

func (p *provider) write(name string, value cty.Value) (*tfplugin6.DynamicValue, error) {
	data, err := msgpack.Marshal(value, p.types[name])
	return &tfplugin6.DynamicValue{Msgpack: data}, err
}

// withUnknowns is what is proposed, with whatever is computed and null unknown.
func (p *provider) withUnknowns(name string, proposed cty.Value) cty.Value {
	values := proposed.AsValueMap()
	for _, each := range p.schema.ResourceSchemas[name].Block.Attributes {
		if each.Computed && values[each.Name].IsNull() {
			values[each.Name] = cty.UnknownVal(values[each.Name].Type())
		}
	}
	return cty.ObjectVal(values)
}

func typeOf(attributes []*tfplugin6.Schema_Attribute, blocks []*tfplugin6.Schema_NestedBlock) cty.Type {
	types := map[string]cty.Type{}
	for _, each := range attributes {
		if each.NestedType == nil {
			var of cty.Type
			must(json.Unmarshal(each.Type, &of))
			types[each.Name] = of
			continue
		}
		types[each.Name] = nested(int32(each.NestedType.Nesting), typeOf(each.NestedType.Attributes, nil))
	}
	for _, each := range blocks {
		types[each.TypeName] = nested(int32(each.Nesting), typeOf(each.Block.Attributes, each.Block.BlockTypes))
	}
	return cty.Object(types)
}

// nested: objects and blocks count their ways of nesting alike: single, list, set, map, and a group, which is single.
func nested(nesting int32, of cty.Type) cty.Type {
	switch tfplugin6.Schema_NestedBlock_NestingMode(nesting) {
	case tfplugin6.Schema_NestedBlock_LIST:
		return cty.List(of)
	case tfplugin6.Schema_NestedBlock_SET:
		return cty.Set(of)
	case tfplugin6.Schema_NestedBlock_MAP:
		return cty.Map(of)
	}
	return of
}

type served struct {
	plugin.NetRPCUnsupportedPlugin
	provider *provider
}

func (s *served) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	tfplugin6.RegisterProviderServer(server, s.provider)
	return nil
}

func (s *served) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (interface{}, error) {
	panic("only served")
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	data, err := os.ReadFile(os.Getenv("NULLPROVIDER_SCHEMA"))
	must(err)
	schema := &tfplugin6.GetProviderSchema_Response{}
	must(proto.Unmarshal(data, schema))
	types := map[string]cty.Type{}
	for name, each := range schema.ResourceSchemas {
		types[name] = typeOf(each.Block.Attributes, each.Block.BlockTypes)
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			MagicCookieKey:   "TF_PLUGIN_MAGIC_COOKIE",
			MagicCookieValue: "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2",
		},
		VersionedPlugins: map[int]plugin.PluginSet{
			6: {"provider": &served{provider: &provider{schema: schema, types: types}}},
		},
		GRPCServer: plugin.DefaultGRPCServer,
	})
}
